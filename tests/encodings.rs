//! Databases in other encodings than UTF8, where text may be any bytes.

use keywright_tests::{Database, is_active, one};

#[test]
fn any_bytes_are_answered_or_refused_with_a_documented_code() {
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        let database = Database::with_encoding(&format!("encoding_{}", encoding.to_lowercase()), encoding);
        let mut client = database.connect();
        client.batch_execute("SELECT keywright.ensure_user('x', '')").unwrap();
        let token: String = one(&mut client, "SELECT token FROM keywright.mint_api_key('x', 'n')");
        assert!(is_active(&mut client, &token), "{encoding}");
        let odd = match encoding {
            "SQL_ASCII" => "E'\\xff\\xc3\\x28'",
            "LATIN1" => "chr(233) || chr(255)",
            _ => "E'\\xa4\\xa2'",
        };
        for call in ["verify_api_key", "verify_gateway_key"] {
            for argument in
                [odd.to_owned(), format!("'{}' || {odd}", &token[..40]), format!("repeat({odd}, 20)")]
            {
                let sql = format!("SELECT active FROM keywright.{call}({argument})");
                assert!(!one::<bool>(&mut client, &sql), "{encoding}: {sql}");
            }
        }
        // Free text is stored as it is.
        let stored = format!("SELECT outcome FROM keywright.ensure_user('x', NULL, display_name => {odd})");
        assert_eq!(one::<String>(&mut client, &stored), "updated", "{encoding}");
        assert_eq!(one::<String>(&mut client, &stored), "unchanged", "{encoding}");
        let same = format!("SELECT display_name = {odd} FROM keywright.list_users()");
        assert!(one::<bool>(&mut client, &same), "{encoding}");
        for call in [
            format!("ensure_user({odd}, '')"),
            format!("ensure_user('y', {odd})"),
            format!("ensure_user('y', '', kind => {odd})"),
            format!("ensure_user('y', '', db_role => {odd})"),
            format!("ensure_user('y', '', managed_by => {odd})"),
            format!("mint_api_key({odd}, 'n')"),
            format!("mint_api_key('x', {odd})"),
            format!("mint_api_key('x', 'm', ARRAY[{odd}])"),
            format!("mint_gateway_key({odd})"),
            format!("revoke_api_key({odd})"),
            format!("suspend_user({odd})"),
            format!("delete_gateway_key({odd})"),
            format!("grant_access({odd}, 'verifier')"),
            format!("grant_access('postgres', {odd})"),
            format!("list_api_keys({odd})"),
            format!("preflight_authenticator({odd}, 'x')"),
            format!("preflight_authenticator('x', 'x', ARRAY[{odd}])"),
            format!("grant_authenticator({odd}, 'x', 'x')"),
            format!("grant_authenticator('x', 'x', {odd})"),
            format!("allow_authenticator('x', ARRAY[{odd}])"),
            format!("set_postgrest_setting({odd}, 'db_pool', '1')"),
            format!("set_postgrest_setting('x', 'jwt_aud', {odd})"),
            format!("set_postgrest_settings('x', jsonb_build_object('jwt_aud', {odd}))"),
            format!("set_postgrest_settings('x', jsonb_build_object({odd}, 1))"),
            format!("render_postgrest_config('x', ARRAY[{odd}])"),
        ] {
            let answer = client.query(&format!("SELECT keywright.{call}"), &[]);
            // Nothing has such a name: there is nothing to end or to list.
            let nothing = ["suspend_user(", "delete_gateway_key(", "list_api_keys("];
            let error = match answer {
                Ok(_) if nothing.iter().any(|name| call.starts_with(name)) => continue,
                answer => answer.expect_err(&call),
            };
            let code = error.as_db_error().unwrap().code().code().to_owned();
            assert!(["22023", "23514", "42704"].contains(&code.as_str()), "{encoding}: {call}: {error:?}");
        }
    }
}
