//! A token in clear, for as short a time as possible.

use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// For what holds a token among other things, when it is done with.
pub fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}

/// Zeroed when dropped, never printed. There is no `Display` on purpose.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(clear: String) -> Self {
        Secret(Zeroizing::new(clear))
    }

    /// The clear text, for the one result column it may be in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// As long for any two of one length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Secret::new("kwk_canary".into())), "[redacted]");
    }
}
