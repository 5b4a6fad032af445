//! Something in every room, and all that can be said of it: for tests that move a database or change the extension under it.

use crate::{is_active, one};
use postgres::Client;
use std::collections::BTreeSet;

pub const LISTED: &str = "SELECT coalesce((SELECT string_agg(k::text, E'\\n') FROM keywright.list_api_keys(include_inactive => true) AS k), '')
   || coalesce((SELECT string_agg(k::text, E'\\n') FROM keywright.list_gateway_keys() AS k), '')
   || coalesce((SELECT string_agg(u::text, E'\\n') FROM keywright.list_users(true) AS u), '')
   || coalesce((SELECT string_agg(t::text, E'\\n') FROM keywright.list_resource_types() AS t WHERE NOT built_in), '')
   || coalesce((SELECT string_agg(r::text, E'\\n') FROM keywright.list_resource_types() AS t, keywright.list_resources(t.type) AS r), '')
   || coalesce((SELECT string_agg(r::text, E'\\n') FROM keywright.list_roles() AS r WHERE NOT built_in), '')
   || coalesce((SELECT string_agg(s::text, E'\\n') FROM keywright.list_scopes() AS s WHERE NOT built_in), '')
   || coalesce((SELECT string_agg(b::text, E'\\n') FROM keywright.list_role_bindings() AS b), '')
   || coalesce((SELECT string_agg(a::text, E'\\n') FROM keywright.list_authenticators() AS a), '')
   || coalesce((SELECT string_agg(a::text, E'\\n') FROM keywright.list_allowed_authenticators() AS a), '')
   || coalesce((SELECT string_agg(keywright.render_postgrest_config(service, '{h}'), E'\\n') FROM keywright.list_authenticators()), '')";

/// Tokens, and whether each verifies.
pub fn fill(client: &mut Client) -> Vec<(String, bool)> {
    client
        .batch_execute(
            "SELECT keywright.ensure_system_user('operator', 'o@example.invalid', managed_by => 'plane-a');
             SELECT keywright.ensure_user('alice', '');
             SELECT keywright.ensure_user('bob', '');
             SELECT keywright.ensure_user('carol', '');",
        )
        .unwrap();
    client
        .batch_execute(
            "SELECT keywright.register_resource_type('workspace', 'project'), keywright.register_resource_type('folder', 'folder');
             SELECT keywright.ensure_resource('organization', 'acme', name => 'Acme'), keywright.ensure_resource('folder', 'f1'),
                    keywright.ensure_resource('folder', 'f2', 'f1'), keywright.ensure_resource('folder', 'f0', 'f2');
             SELECT keywright.define_role('deployer', '{workspace:*}', 2), keywright.define_scope('deploy', '{workspace:*}');
             CREATE TABLE public.projects (id bigint PRIMARY KEY, organization text);
             SELECT keywright.track_table('public.projects', 'project', 'id', 'organization');
             INSERT INTO public.projects VALUES (1, 'acme'), (2, NULL);
             SELECT keywright.bind_role('alice', 'deployer', 'project', '1'), keywright.bind_role('bob', 'auditor');
             SELECT keywright.bind_role('alice', 'project-viewer', 'project', '2', granted_by => 'operator')",
        )
        .unwrap();
    let mut tokens = Vec::new();
    let mut token = |client: &mut Client, sql: &str| {
        let token: String = one(client, &format!("SELECT token FROM keywright.{sql}"));
        tokens.push(token.clone());
        token
    };
    for number in 0..50 {
        let user = ["operator", "alice"][number % 2];
        token(
            client,
            &format!("mint_api_key('{user}', 'key-{number}', '{{project:read}}', '{{project:p1}}')"),
        );
    }
    client.batch_execute("SET keywright.api_key_brand = ''").unwrap();
    token(client, "mint_api_key('alice', 'bare')");
    client.batch_execute("RESET keywright.api_key_brand").unwrap();
    let rotated = token(client, "mint_api_key('alice', 'rotated')");
    token(client, &format!("rotate_api_key('{}', '1 hour')", &rotated[4..14]));
    let revoked = token(client, "mint_api_key('alice', 'revoked')");
    client.batch_execute(&format!("SELECT keywright.revoke_api_key('{}', 'gone')", &revoked[4..14])).unwrap();
    token(client, "mint_api_key('alice', 'expired')");
    client
        .batch_execute("UPDATE keywright.api_keys SET expires_at = clock_timestamp() WHERE name = 'expired'")
        .unwrap();
    token(client, "mint_api_key('bob', 'suspended')");
    token(client, "mint_api_key('carol', 'deleted')");
    client.batch_execute("SELECT keywright.suspend_user('bob'), keywright.delete_user('carol')").unwrap();
    token(client, "mint_gateway_key('edge-1')");
    token(client, "rotate_gateway_key('edge-1', '1 hour')");
    token(client, "mint_gateway_key('edge-2')");
    client
        .batch_execute(
            "SELECT keywright.heartbeat_gateway_key(gateway_key_id) FROM keywright.list_gateway_keys()",
        )
        .unwrap();
    let active: Vec<bool> = tokens.iter().map(|token| is_active(client, token)).collect();
    assert_eq!(active.iter().filter(|active| **active).count(), 50 + 1 + 2 + 3);
    tokens.into_iter().zip(active).collect()
}

/// All that an extension is, in text that is the same for two that are alike: a line a fact.
pub fn catalog(client: &mut Client) -> Vec<String> {
    const FACTS: &str = r#"
      WITH ours AS (
        SELECT d.classid, d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
         WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'keywright'),
      relations AS (SELECT c.* FROM pg_class AS c WHERE c.relnamespace = 'keywright'::regnamespace)
      SELECT concat_ws(' | ', 'member', i.type, i.identity) FROM ours, pg_identify_object(classid, objid, 0) AS i
      UNION ALL
      SELECT concat_ws(' | ', 'in the schema', i.type, i.identity) FROM pg_depend AS d, pg_identify_object(d.classid, d.objid, d.objsubid) AS i
       WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'keywright'::regnamespace
      UNION ALL
      SELECT concat_ws(' | ', 'initial privileges', (pg_identify_object(p.classoid, p.objoid, p.objsubid)).identity, p.privtype, p.initprivs::text)
        FROM pg_init_privs AS p JOIN ours ON ours.classid = p.classoid AND ours.objid = p.objoid
      UNION ALL
      SELECT concat_ws(' | ', 'extension', extversion, extowner::regrole, extnamespace::regnamespace, extrelocatable,
               obj_description(oid, 'pg_extension')) FROM pg_extension WHERE extname = 'keywright'
      UNION ALL
      SELECT concat_ws(' | ', 'dumped', n, t.c::oid::regclass, extcondition[n])
        FROM pg_extension, unnest(extconfig) WITH ORDINALITY AS t (c, n) WHERE extname = 'keywright'
      UNION ALL
      SELECT concat_ws(' | ', 'schema', nspowner::regrole, coalesce(nspacl, acldefault('n', nspowner))::text, obj_description(oid, 'pg_namespace'))
        FROM pg_namespace WHERE nspname = 'keywright'
      UNION ALL
      SELECT concat_ws(' | ', 'relation', relname, relkind, relpersistence, relreplident, relowner::regrole, coalesce(relacl::text, 'no acl'),
               relrowsecurity, relforcerowsecurity, coalesce(reloptions::text, 'no options'), relispartition, a.amname,
               coalesce(obj_description(c.oid, 'pg_class'), 'no comment'))
        FROM relations AS c LEFT JOIN pg_am AS a ON a.oid = c.relam
      UNION ALL
      SELECT concat_ws(' | ', 'column', relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attcollation::regcollation, attstorage,
               coalesce(attstattarget, -1), attcompression, attidentity, attgenerated, attisdropped, atthasmissing,
               coalesce(attacl::text, 'no acl'), array_to_string(ARRAY(SELECT o FROM unnest(attoptions) AS o WHERE o NOT LIKE 'pg\_attver=%'), ','),
               coalesce(pg_get_expr(d.adbin, d.adrelid), 'no default'), coalesce(col_description(c.oid, attnum), 'no comment'))
        FROM relations AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
      UNION ALL
      SELECT concat_ws(' | ', 'constraint', conrelid::regclass, conname, contype, convalidated, condeferrable, condeferred, connoinherit,
               pg_get_constraintdef(oid), coalesce(obj_description(oid, 'pg_constraint'), 'no comment'))
        FROM pg_constraint WHERE connamespace = 'keywright'::regnamespace
      UNION ALL
      SELECT concat_ws(' | ', 'index', pg_get_indexdef(i.indexrelid), indisunique, indisprimary, indisvalid, indisready, indislive, indisclustered,
               indisreplident) FROM pg_index AS i JOIN relations AS c ON c.oid = i.indexrelid
      UNION ALL
      SELECT concat_ws(' | ', 'trigger', pg_get_triggerdef(t.oid), tgenabled, coalesce(obj_description(t.oid, 'pg_trigger'), 'no comment'))
        FROM pg_trigger AS t JOIN relations AS c ON c.oid = t.tgrelid WHERE NOT tgisinternal
      UNION ALL
      SELECT concat_ws(' | ', 'policy', p.polrelid::regclass, polname, polcmd, polpermissive, polroles::text, pg_get_expr(polqual, polrelid),
               pg_get_expr(polwithcheck, polrelid)) FROM pg_policy AS p JOIN relations AS c ON c.oid = p.polrelid
      UNION ALL
      SELECT concat_ws(' | ', 'rule', c.relname, ev_enabled, pg_get_ruledef(r.oid)) FROM pg_rewrite AS r JOIN relations AS c ON c.oid = r.ev_class
      UNION ALL
      SELECT concat_ws(' | ', 'type', typname, typtype, typowner::regrole, coalesce(typacl::text, 'no acl'), coalesce(obj_description(oid, 'pg_type'), 'no comment'))
        FROM pg_type WHERE typnamespace = 'keywright'::regnamespace
      UNION ALL
      SELECT concat_ws(' | ', 'routine', pg_get_functiondef(oid), prosrc, probin, procost, prorows, proowner::regrole, coalesce(proacl::text, 'no acl'),
               coalesce(obj_description(oid, 'pg_proc'), 'no comment')) FROM pg_proc WHERE pronamespace = 'keywright'::regnamespace"#;
    let mut facts: Vec<String> = client.query(FACTS, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    facts.sort();
    facts
}

/// Every row there is, with its table in front.
pub fn rows(client: &mut Client) -> BTreeSet<String> {
    const TABLES: &str =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'keywright'::regnamespace AND relkind = 'r'";
    let tables: Vec<String> = client.query(TABLES, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    tables
        .iter()
        .flat_map(|table| {
            let rows = format!("SELECT '{table}: ' || t::text FROM keywright.{table} AS t");
            client.query(&rows, &[]).unwrap().iter().map(|row| row.get(0)).collect::<Vec<String>>()
        })
        .collect()
}
