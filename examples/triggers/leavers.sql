-- An application's own table decides whose keys live: who is suspended there is suspended here, and who leaves loses all keys,
-- in the transaction in which the application says so.
\pset footer off
CREATE EXTENSION keywright;
-- The application, which may change its table and verify keys, and no more; and the role whose rights the trigger has.
CREATE ROLE example_shop LOGIN;
CREATE ROLE example_hr NOLOGIN;
SELECT keywright.grant_access('example_shop', 'verifier'), keywright.grant_access('example_hr', 'reconciler');
CREATE SCHEMA shop AUTHORIZATION example_hr;
SET ROLE example_hr;
CREATE TABLE shop.people (username text PRIMARY KEY, away boolean NOT NULL DEFAULT false);
GRANT USAGE ON SCHEMA shop TO example_shop;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.people TO example_shop;

CREATE FUNCTION shop.people_follow() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF tg_op = 'INSERT' THEN
    PERFORM keywright.ensure_user(new.username, '', managed_by => 'shop');
  ELSIF tg_op = 'DELETE' THEN
    PERFORM keywright.delete_user(old.username);
  ELSIF new.away AND NOT old.away THEN
    PERFORM keywright.suspend_user(new.username);
  ELSIF old.away AND NOT new.away THEN
    PERFORM keywright.activate_user(new.username);
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION shop.people_follow() FROM PUBLIC;
CREATE TRIGGER people_follow AFTER INSERT OR UPDATE OF away OR DELETE ON shop.people
  FOR EACH ROW EXECUTE FUNCTION shop.people_follow();
RESET ROLE;

SET SESSION AUTHORIZATION example_shop;
INSERT INTO shop.people VALUES ('ada'), ('grace');
RESET SESSION AUTHORIZATION;
SELECT token FROM keywright.mint_api_key('ada', 'laptop') \gset ada_
SELECT token FROM keywright.mint_api_key('grace', 'laptop') \gset grace_

SET SESSION AUTHORIZATION example_shop;
UPDATE shop.people SET away = true WHERE username = 'ada';
SELECT active AS ada_away FROM keywright.verify_api_key(:'ada_token');
UPDATE shop.people SET away = false WHERE username = 'ada';
SELECT active AS ada_back FROM keywright.verify_api_key(:'ada_token');
-- A row that goes and comes back in a transaction that is rolled back has done nothing.
BEGIN;
DELETE FROM shop.people WHERE username = 'grace';
SELECT active AS grace_leaving FROM keywright.verify_api_key(:'grace_token');
ROLLBACK;
SELECT active AS grace_stays FROM keywright.verify_api_key(:'grace_token');
DELETE FROM shop.people WHERE username = 'grace';
SELECT active AS grace_gone FROM keywright.verify_api_key(:'grace_token');
-- The same name later is somebody else, with no key.
INSERT INTO shop.people VALUES ('grace');
SELECT active AS old_key FROM keywright.verify_api_key(:'grace_token');
RESET SESSION AUTHORIZATION;
SELECT count(*) AS new_keys FROM keywright.list_api_keys('grace');

DROP SCHEMA shop CASCADE;
SELECT keywright.revoke_access('example_shop', 'verifier'), keywright.revoke_access('example_hr', 'reconciler');
DROP EXTENSION keywright;
DROP ROLE example_shop, example_hr;
