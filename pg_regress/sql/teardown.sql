-- Everything goes, and nothing is left.
DROP FUNCTION public.refusal;
SELECT grantee, capability, keywright.revoke_access(grantee, capability) FROM keywright.list_access();
DROP EXTENSION keywright;
SELECT count(*) FROM pg_namespace WHERE nspname = 'keywright';
DROP ROLE regress_keywright_authenticator, regress_keywright_requester, regress_keywright_verifier, regress_keywright_issuer, regress_keywright_auditor,
  regress_keywright_reconciler, regress_keywright_maintainer, regress_keywright_admin, regress_keywright_nobody;
