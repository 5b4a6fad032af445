//! The two kinds of token, made and taken apart.
//!
//! API key: `kwk_` id(10) `-` secret(22) checksum(6), or bare `id-secret`.
//! Gateway key: `kwg_` prefix(7) secret(26) checksum(6); the first 11 characters are public.
//! The checksum covers all before it, so that a typing error or junk never reaches a look-up.

use crate::alphabet::{CHECKSUM_LEN, NoRandomness, Randomness, checksum, is_base62, push_random};
use crate::digest::{self, Digest};
use crate::secret::Secret;

pub const API_KEY_BRAND: &str = "kwk_";
pub const GATEWAY_KEY_BRAND: &str = "kwg_";
pub const KEY_ID_LEN: usize = 10;
pub const SECRET_LEN: usize = 22;
pub const TOKEN_LEN: usize = 43;
pub const BARE_LEN: usize = KEY_ID_LEN + 1 + SECRET_LEN;
pub const GATEWAY_PREFIX_LEN: usize = 11;
const GATEWAY_SECRET_LEN: usize = 26;

/// Whether new API keys carry the brand and the checksum. Both forms always verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Branded,
    Bare,
}

/// An API key as presented: well-formed, not yet known to be good.
#[derive(Clone, Copy)]
pub struct ApiKey<'a> {
    id: &'a str,
    secret: &'a [u8],
}

impl<'a> ApiKey<'a> {
    /// `None` when `token` can't be an API key, whatever it is.
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        let bare = match token.len() {
            TOKEN_LEN => checked_body(token)?.strip_prefix(API_KEY_BRAND.as_bytes())?,
            BARE_LEN => token,
            _ => return None,
        };
        let (id, rest) = bare.split_at_checked(KEY_ID_LEN)?;
        let secret = rest.strip_prefix(b"-")?;
        (is_base62(id) && is_base62(secret)).then_some(())?;
        Some(ApiKey { id: str::from_utf8(id).ok()?, secret })
    }

    /// The public half: names the key, proves nothing.
    pub fn id(&self) -> &'a str {
        self.id
    }

    pub fn digest(&self) -> Digest {
        digest::of(self.secret)
    }
}

impl std::fmt::Debug for ApiKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({}-[redacted])", self.id)
    }
}

/// A token as its holder has stored it: without white space at either end, which is the store's; nothing when nothing is left.
pub fn stored(token: &[u8]) -> Option<&[u8]> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let from = token.iter().position(|byte| !blank(byte))?;
    let to = token.iter().rposition(|byte| !blank(byte))?;
    Some(&token[from..=to])
}

/// A gateway key as presented.
#[derive(Clone, Copy)]
pub struct GatewayKey<'a> {
    prefix: &'a str,
    token: &'a [u8],
}

impl<'a> GatewayKey<'a> {
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        let body = checked_body(token)?;
        is_base62(body.strip_prefix(GATEWAY_KEY_BRAND.as_bytes())?).then_some(())?;
        Some(GatewayKey { prefix: str::from_utf8(&token[..GATEWAY_PREFIX_LEN]).ok()?, token })
    }

    /// The public first 11 characters.
    pub fn prefix(&self) -> &'a str {
        self.prefix
    }

    pub fn digest(&self) -> Digest {
        digest::of(self.token)
    }
}

impl std::fmt::Debug for GatewayKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GatewayKey({}[redacted])", self.prefix)
    }
}

/// All but the checksum of a 43-character token whose checksum is right.
fn checked_body(token: &[u8]) -> Option<&[u8]> {
    let (body, sum) = token.split_at_checked(TOKEN_LEN - CHECKSUM_LEN)?;
    (sum == checksum(body)).then_some(body)
}

/// True when `id` has the form of an API key's id.
pub fn is_key_id(id: &[u8]) -> bool {
    id.len() == KEY_ID_LEN && is_base62(id)
}

/// A token just made, and what is stored of it.
#[derive(Debug)]
pub struct Minted {
    /// An API key's id, or a gateway key's public prefix.
    pub public: String,
    pub token: Secret,
    pub digest: Digest,
}

pub fn mint_api_key(form: Form, source: &mut impl Randomness) -> Result<Minted, NoRandomness> {
    // The full capacity at once: a reallocation would leave a copy of the secret behind.
    let mut token = String::with_capacity(TOKEN_LEN);
    if form == Form::Branded {
        token.push_str(API_KEY_BRAND);
    }
    let start = token.len();
    push_random(&mut token, KEY_ID_LEN, source)?;
    let public = token[start..].to_owned();
    token.push('-');
    let secret_start = token.len();
    push_random(&mut token, SECRET_LEN, source)?;
    let digest = digest::of(&token.as_bytes()[secret_start..]);
    if form == Form::Branded {
        push_checksum(&mut token);
    }
    Ok(Minted { public, token: Secret::new(token), digest })
}

pub fn mint_gateway_key(source: &mut impl Randomness) -> Result<Minted, NoRandomness> {
    let mut token = String::with_capacity(TOKEN_LEN);
    token.push_str(GATEWAY_KEY_BRAND);
    let digits = GATEWAY_PREFIX_LEN - GATEWAY_KEY_BRAND.len() + GATEWAY_SECRET_LEN;
    push_random(&mut token, digits, source)?;
    push_checksum(&mut token);
    let public = token[..GATEWAY_PREFIX_LEN].to_owned();
    let digest = digest::of(token.as_bytes());
    Ok(Minted { public, token: Secret::new(token), digest })
}

fn push_checksum(token: &mut String) {
    for digit in checksum(token.as_bytes()) {
        token.push(digit as char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alphabet::OperatingSystem;

    // The checksum was worked out apart from this code, by Python's zlib.crc32.
    const KNOWN: &str = "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV3bfOdH";
    const BODY: &str = "kwk_0123456789-ABCDEFGHIJKLMNOPQRSTUV";

    fn branded() -> String {
        let mut token = BODY.to_owned();
        push_checksum(&mut token);
        token
    }

    #[test]
    fn known_token() {
        let token = branded();
        assert_eq!(token, KNOWN);
        assert_eq!(token.len(), TOKEN_LEN);
        let key = ApiKey::parse(token.as_bytes()).unwrap();
        assert_eq!(key.id(), "0123456789");
        assert_eq!(key.digest(), digest::of(b"ABCDEFGHIJKLMNOPQRSTUV"));
        let bare = ApiKey::parse(b"0123456789-ABCDEFGHIJKLMNOPQRSTUV").unwrap();
        assert_eq!(bare.digest(), key.digest());
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = branded();
        let shown = format!("{:?}", ApiKey::parse(token.as_bytes()).unwrap());
        assert_eq!(shown, "ApiKey(0123456789-[redacted])");
        let minted = mint_gateway_key(&mut OperatingSystem).unwrap();
        let key = GatewayKey::parse(minted.token.expose().as_bytes()).unwrap();
        assert!(!format!("{minted:?}{key:?}").contains(&minted.token.expose()[GATEWAY_PREFIX_LEN..]));
    }

    #[test]
    fn one_kind_is_never_the_other() {
        let api = mint_api_key(Form::Branded, &mut OperatingSystem).unwrap();
        let gateway = mint_gateway_key(&mut OperatingSystem).unwrap();
        assert!(GatewayKey::parse(api.token.expose().as_bytes()).is_none());
        assert!(ApiKey::parse(gateway.token.expose().as_bytes()).is_none());
    }

    #[test]
    fn any_changed_character_of_a_branded_token_is_refused() {
        let token = branded();
        for at in 0..token.len() {
            for byte in 0..=255u8 {
                let mut other = token.clone().into_bytes();
                if other[at] != byte {
                    other[at] = byte;
                    assert!(ApiKey::parse(&other).is_none(), "byte {byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn look_alikes_and_near_misses_are_refused() {
        for junk in [
            "",
            "kwk_",
            "-",
            "0123456789-ABCDEFGHIJKLMNOPQRSTU",
            "0123456789-ABCDEFGHIJKLMNOPQRSTUVW",
            "0123456789_ABCDEFGHIJKLMNOPQRSTUV",
            "012345678--ABCDEFGHIJKLMNOPQRSTUV",
            " 123456789-ABCDEFGHIJKLMNOPQRSTUV",
            "０１２３４５６７８９-ABCDEFGHIJKLMNOPQRSTUV",
            "0123456789-ABCDEFGHIJKLMNOPQRSTU\0",
            "0123456789-ABCDEFGHIJKLMNOPQRSTU'",
        ] {
            assert!(ApiKey::parse(junk.as_bytes()).is_none(), "{junk:?}");
            assert!(GatewayKey::parse(junk.as_bytes()).is_none(), "{junk:?}");
        }
        assert!(ApiKey::parse(&vec![b'a'; 1 << 20]).is_none());
        assert!(ApiKey::parse(format!("{} ", branded()).as_bytes()).is_none());
        assert!(ApiKey::parse(branded().to_uppercase().as_bytes()).is_none());
    }
}
