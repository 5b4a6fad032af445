-- What is checked is what is used: no part of a length of time is negative, and it is at most 100 years.
SELECT outcome FROM keywright.ensure_user('regress-time', '', 'service');
SELECT key_id FROM keywright.mint_api_key('regress-time', 'old') \gset
SELECT name FROM keywright.mint_gateway_key('regress-time');
CREATE TABLE lengths (length text);
INSERT INTO lengths VALUES
  ('-1 second'), ('-1 day'), ('-1 month'), ('1 month -1 day'), ('-1 month 31 days'), ('1 day -1 second'), ('-1 day 25 hours'),
  ('-1200 months 36000 days'), ('1200 months -36000 days'), ('3360000 months -100763500 days'), ('3600000 months -107999999 days'),
  ('-3600000 months 108000001 days'), ('-178000000 years'), ('178000000 years'), ('-2147483648 days'), ('2147483647 days'),
  ('-2562047788:00:54.775807'), ('2562047788:00:54.775807'), ('2147483647 months 2147483647 days'), ('-2147483648 months -2147483648 days'),
  ('101 years'), ('1200 months 26 days'), ('36526 days'), ('876601 hours');
INSERT INTO lengths
SELECT CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN l.infinite ELSE l.finite END
  FROM (VALUES ('infinity', '1000000 years'), ('-infinity', '-1000000 years')) AS l (infinite, finite);
-- Every one of them is refused by everything that takes one.
SELECT c.call, r.code, count(*)
  FROM (VALUES ('keywright.mint_api_key(''regress-time'', ''x'', lifetime => %L)'),
               ('keywright.mint_api_keys(''{regress-time}'', ''{x}'', lifetime => %L)'),
               ('keywright.ensure_api_key(''regress-time'', ''x'', lifetime => %L)'),
               ('keywright.ensure_api_key(''regress-time'', ''x'', renew_before => %L)'),
               (format('keywright.rotate_api_key(%L, grace => %%L)', :'key_id')),
               ('keywright.rotate_gateway_key(''regress-time'', grace => %L)'),
               ('keywright.ensure_operator_access(''regress'', ''time'', lifetime => %L, prefix => ''regress-op-'')'),
               ('keywright.ensure_operator_access(''regress'', ''time'', renew_before => %L, prefix => ''regress-op-'')'),
               ('keywright.purge_api_keys(%L)'),
               ('keywright.plan(format(''{"manager": "m", "api_keys": [{"username": "regress-time", "name": "x", "lifetime": "%%s"}]}'', %L)::jsonb)')) AS c (call),
       lengths AS l, LATERAL public.refusal('SELECT ' || format(c.call, l.length)) AS r
 GROUP BY c.call, r.code ORDER BY regexp_replace(c.call, 'key\(''\w{10}', '') COLLATE "C" \g (format=unaligned) | sed 's/''[0-9A-Za-z]\{10\}''/key_id/'
SELECT public.refusal('CALL keywright.maintain(''-1200 months 36000 days'')');
\x on
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys('-1200 months +36000 days')$$);
SELECT * FROM public.refusal($$SELECT keywright.purge_api_keys('101 years')$$);
\x off
SELECT count(*) AS all_live FROM keywright.list_api_keys('regress-time') WHERE state = 'active';
-- The longest, and the shortest.
SELECT keywright.purge_api_keys('100 years') = 0 AS nothing, keywright.purge_api_keys('36525 days') = 0 AS nothing;
BEGIN;
SELECT expires_at BETWEEN clock_timestamp() + interval '36523 days' AND clock_timestamp() + interval '36525 days' AS in_range
  FROM unnest('{100 years,36525 days,1200 months 25 days,876600 hours}'::interval[]) AS l (lifetime),
       LATERAL keywright.ensure_api_key('regress-time', 'long', lifetime => l.lifetime);
ROLLBACK;
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('regress-time', 'x', lifetime => '59.999999')$$);
SELECT * FROM public.refusal($$SELECT keywright.ensure_api_key('regress-time', 'x', lifetime => '59.999999')$$);
\x off
SELECT expires_at - clock_timestamp() BETWEEN interval '80 seconds' AND interval '90 seconds' AS seconds
  FROM keywright.mint_api_key('regress-time', 'seconds', lifetime => '90');

-- A year is 365 days of a cap and a month 30; no key lives longer than the cap.
SET keywright.max_api_key_lifetime = '365d';
SELECT expires_at <= clock_timestamp() + interval '365 days' AS within FROM keywright.mint_api_key('regress-time', 'year', lifetime => '1 year');
SELECT expires_at <= clock_timestamp() + interval '365 days' AS within FROM keywright.mint_api_key('regress-time', 'months', lifetime => '11 months 35 days');
SELECT count(*) FROM keywright.mint_api_keys('{regress-time}', '{many}', lifetime => '12 months');
\x on
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('regress-time', 'x', lifetime => '366 days')$$);
SELECT * FROM public.refusal($$SELECT keywright.mint_api_key('regress-time', 'x', lifetime => '1 year 1 second')$$);
\x off
-- A key that is kept is not judged by the lifetime of one that is not minted, also not when the cap is lower by now.
SELECT token FROM keywright.ensure_api_key('regress-time', 'kept', lifetime => '1 year') \gset
SET keywright.max_api_key_lifetime = '30d';
SELECT outcome FROM keywright.ensure_api_key('regress-time', 'kept', :'token', lifetime => '1 year');
SELECT code FROM public.refusal($$SELECT keywright.ensure_api_key('regress-time', 'kept', lifetime => '1 year')$$);
SELECT outcome, expires_at <= clock_timestamp() + interval '30 days' AS within
  FROM keywright.ensure_api_key('regress-time', 'kept', lifetime => '1 month');
SELECT format('{"manager": "regress-time", "adopt": true, "api_keys": [{"username": "regress-time", "name": "year", "lifetime": "1 year"}, %s]}',
  '{"username": "regress-time", "name": "new", "lifetime": "%s"}') AS manifest \gset
SELECT action, name FROM keywright.apply(format(:'manifest', '30d')::jsonb);
\x on
SELECT * FROM public.refusal(format('SELECT keywright.plan(%L)', replace(format(:'manifest', '31d'), '"new"', '"newer"')));
\x off
RESET keywright.max_api_key_lifetime;

-- In a manifest as anywhere else.
SELECT l.text, a.change ->> 'lifetime' AS lifetime
  FROM unnest('{30d,1 mon,8760h,90 days,1 year 6 months,P1Y2M,1-6,1 12:30,2 weeks,90,@ 1 day,1.5 days,100 years}'::text[]) AS l (text),
       LATERAL keywright.plan(jsonb_build_object('manager', 'regress-time', 'api_keys',
         jsonb_build_array(jsonb_build_object('username', 'regress-time', 'name', 'plan', 'lifetime', l.text)))) AS a;
SELECT r.code, r.detail, count(*)
  FROM unnest('{"",soon,30 dayz,1 day ago,99999999999 years,9999999999 days,30,1 day x,-1-6}'::text[] || repeat('9', 1000) || repeat('1 day ', 1000)) AS l (text),
       LATERAL public.refusal(format('SELECT keywright.plan(%L)', jsonb_build_object('manager', 'regress-time', 'api_keys',
         jsonb_build_array(jsonb_build_object('username', 'regress-time', 'name', 'plan', 'lifetime', l.text))))) AS r
 GROUP BY 1, 2 ORDER BY 1, 2;

DROP TABLE lengths;
DELETE FROM keywright.api_keys AS k USING keywright.users AS u WHERE u.user_id = k.user_id AND u.username = 'regress-time';
SELECT keywright.delete_user('regress-time') IS NOT NULL AS deleted, (SELECT name FROM keywright.delete_gateway_key('regress-time'));
