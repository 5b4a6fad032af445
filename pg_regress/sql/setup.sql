-- The extension, and a role for each capability that has nothing else.
CREATE EXTENSION keywright;
CREATE ROLE regress_keywright_authenticator LOGIN;
CREATE ROLE regress_keywright_requester;
CREATE ROLE regress_keywright_verifier;
CREATE ROLE regress_keywright_issuer;
CREATE ROLE regress_keywright_auditor;
CREATE ROLE regress_keywright_reconciler;
CREATE ROLE regress_keywright_maintainer;
CREATE ROLE regress_keywright_admin;
CREATE ROLE regress_keywright_nobody;
SELECT keywright.grant_access('regress_keywright_' || capability, capability)
  FROM unnest('{authenticator,requester,verifier,issuer,auditor,reconciler,maintainer,admin}'::text[]) AS capability;

-- How a statement ends: what a client library sees of the error, as the role in force.
CREATE FUNCTION public.refusal(
  statement text, OUT code text, OUT rule text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE statement;
  code := '00000';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, rule = CONSTRAINT_NAME, message = MESSAGE_TEXT,
    detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END
$$;
