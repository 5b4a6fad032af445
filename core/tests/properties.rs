//! Properties that hold for any input.

use keywright_core::alphabet::{OperatingSystem, is_base62};
use keywright_core::name::Rule;
use keywright_core::permission::Permission;
use keywright_core::registry::{Lazy, Registry};
use keywright_core::token::{
    self, ApiKey, BARE_LEN, Form, GATEWAY_PREFIX_LEN, GatewayKey, KEY_ID_LEN, TOKEN_LEN,
};
use keywright_core::usage::{self, Noted, Packed};
use keywright_core::{allow_list, digest, printable, scope};
use proptest::prelude::*;

fn texts(list: &[String]) -> Vec<Option<&[u8]>> {
    list.iter().map(|entry| Some(entry.as_bytes())).collect()
}

fn registry() -> Lazy<fn() -> Registry> {
    Lazy::new(|| Registry::new(["a", "b", "c"].map(String::from), ["all", "some"].map(String::from)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        _ = ApiKey::parse(&bytes);
        _ = GatewayKey::parse(&bytes);
        _ = printable::quoted(&bytes);
        for rule in Rule::ALL {
            _ = rule.check(&bytes);
        }
        _ = scope::normalize(&[Some(&bytes)], &registry());
        _ = allow_list::normalize(&[Some(&bytes)], &registry());
    }

    #[test]
    fn a_packed_id_comes_back_and_keeps_its_order(one in "[0-9A-Za-z]{10}", other in "[0-9A-Za-z]{10}") {
        let numbers = [&one, &other].map(|id| Packed::of(id.as_bytes()).unwrap());
        prop_assert_eq!(numbers[0].id(), &*one);
        prop_assert_eq!(numbers[0].number().cmp(&numbers[1].number()), one.cmp(&other));
        prop_assert_eq!(Packed::from_number(numbers[0].number()), Some(numbers[0]));
    }

    #[test]
    fn a_file_of_usage_comes_back(entries in proptest::collection::vec(
        (any::<u32>(), "[0-9A-Za-z]{10}", any::<i64>(), any::<i64>()), 0..20)) {
        let entries: Vec<Noted> = entries.into_iter().map(|(database, id, used, presented)| {
            Noted { database, key: Packed::of(id.as_bytes()).unwrap(), used, presented }
        }).collect();
        prop_assert_eq!(usage::decode(&usage::encode(&entries)), Ok(entries));
    }

    #[test]
    fn any_bytes_as_a_file_of_usage(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        _ = usage::decode(&bytes);
        _ = Packed::of(&bytes);
    }

    #[test]
    fn junk_of_the_right_length_and_brand_is_refused(rest in "[0-9A-Za-z-]{39}") {
        // A chance hit of the checksum is 1 in 62^6.
        let api = format!("kwk_{rest}");
        let gateway = format!("kwg_{rest}");
        prop_assert!(ApiKey::parse(api.as_bytes()).is_none());
        prop_assert!(GatewayKey::parse(gateway.as_bytes()).is_none());
    }

    #[test]
    fn a_token_with_something_added_or_missing_is_refused(at in 0usize..=43, extra in any::<u8>()) {
        let minted = token::mint_api_key(Form::Branded, &mut OperatingSystem).unwrap();
        let mut longer = minted.token.expose().as_bytes().to_vec();
        longer.insert(at, extra);
        prop_assert!(ApiKey::parse(&longer).is_none());
        let mut shorter = minted.token.expose().as_bytes().to_vec();
        shorter.remove(at.min(42));
        prop_assert!(ApiKey::parse(&shorter).is_none());
    }

    #[test]
    fn what_is_quoted_never_holds_a_token(before in "[a-z ]{0,5}", after in "\\PC{0,5}", bare in any::<bool>()) {
        let form = if bare { Form::Bare } else { Form::Branded };
        let minted = token::mint_api_key(form, &mut OperatingSystem).unwrap();
        let clear = minted.token.expose();
        let shown = printable::quoted(format!("{before}{clear}{after}").as_bytes());
        prop_assert!(!shown.contains(clear));
    }

    #[test]
    fn accepted_names_are_what_the_regular_expression_says(
        name in prop_oneof!["[a-cA-C0-1_.-]{0,5}", "[a-z0-9]{1,5}([-_.][a-z0-9]{1,5}){0,3}", "[a-z]{60,66}", "\\PC{0,4}"]
    ) {
        for rule in [Rule::Username, Rule::ApiKeyName, Rule::GatewayKeyName, Rule::RoleName] {
            let joints: &[char] = if rule == Rule::Username { &['-', '_', '.'] } else { &['-'] };
            let group = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let expected = name.len() <= 64 && name.split(joints).all(group);
            prop_assert_eq!(rule.check(name.as_bytes()).is_ok(), expected);
        }
    }

    #[test]
    fn accepted_words_are_what_the_regular_expression_says(name in "[a-bA0_.:*-]{0,5}|[a-z]{60,66}") {
        let word = |part: &str| part.len() <= 63 && part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b));
        let (left, right) = name.split_once(':').unwrap_or((&name, "a"));
        prop_assert_eq!(Rule::ResourceType.check(name.as_bytes()).is_ok(), word(&name));
        prop_assert_eq!(Rule::ScopeName.check(name.as_bytes()).is_ok(), word(left) && word(right));
    }

    #[test]
    fn a_hint_says_nothing_of_the_name(name in "\\PC{0,80}", other in "\\PC{0,80}") {
        for rule in Rule::ALL {
            if let (Err(one), Err(other)) = (rule.check(name.as_bytes()), rule.check(other.as_bytes())) {
                prop_assert_eq!(one.hint, other.hint);
            }
        }
    }

    #[test]
    fn normalizing_twice_changes_nothing(list in proptest::collection::vec("(\\*|[a-c]):(\\*|[a-c])", 1..12)) {
        let scopes = scope::normalize(&texts(&list), &registry()).unwrap();
        prop_assert_eq!(&scope::normalize(&texts(&scopes), &registry()).unwrap(), &scopes);
        let allowed = allow_list::normalize(&texts(&list), &registry()).unwrap();
        prop_assert_eq!(&allow_list::normalize(&texts(&allowed), &registry()).unwrap(), &allowed);
    }

    #[test]
    fn normalizing_neither_widens_nor_narrows(
        list in proptest::collection::vec("(\\*|[a-c]):(\\*|[a-c])", 1..12),
        asked in "[a-d]:[a-d]",
    ) {
        let covered = |list: &[String]| list.iter().any(|entry| {
            Permission::parse(entry).unwrap().covers(&Permission::parse(&asked).unwrap())
        });
        prop_assert_eq!(covered(&list), covered(&scope::normalize(&texts(&list), &registry()).unwrap()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn minted_tokens_have_the_documented_form(bare in any::<bool>()) {
        let form = if bare { Form::Bare } else { Form::Branded };
        let minted = token::mint_api_key(form, &mut OperatingSystem).unwrap();
        let clear = minted.token.expose();
        prop_assert_eq!(clear.len(), if bare { BARE_LEN } else { TOKEN_LEN });
        prop_assert_eq!(minted.public.len(), KEY_ID_LEN);
        prop_assert!(is_base62(minted.public.as_bytes()));
        let key = ApiKey::parse(clear.as_bytes()).unwrap();
        prop_assert_eq!(key.id(), &minted.public);
        prop_assert!(digest::matches(&key.digest(), &minted.digest));

        let minted = token::mint_gateway_key(&mut OperatingSystem).unwrap();
        let clear = minted.token.expose();
        prop_assert_eq!(clear.len(), TOKEN_LEN);
        prop_assert_eq!(&clear[..GATEWAY_PREFIX_LEN], &minted.public);
        let key = GatewayKey::parse(clear.as_bytes()).unwrap();
        prop_assert_eq!(key.prefix(), &minted.public);
        prop_assert!(digest::matches(&key.digest(), &minted.digest));
        prop_assert!(digest::matches(&digest::of(clear.as_bytes()), &minted.digest));
    }
}
