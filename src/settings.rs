//! The settings, each with who may change it and why.

use keywright_core::token::Form;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

#[derive(PostgresGucEnum, Clone, Copy)]
pub enum Brand {
    #[name = c"kwk_"]
    Keywright,
    #[name = c""]
    None,
}

/// Anyone may choose the form of what they mint: both forms verify, so nothing is gained or lost.
static API_KEY_BRAND: GucSetting<Brand> = GucSetting::<Brand>::new(Brand::Keywright);

/// Seconds; 0 for no cap. A policy, so a superuser's: a session must not raise its own limit.
static MAX_API_KEY_LIFETIME: GucSetting<i32> = GucSetting::<i32>::new(0);

pub fn define() {
    GucRegistry::define_enum_guc(
        c"keywright.api_key_brand",
        c"Brand of new API keys.",
        c"kwk_, or empty for the bare form {id}-{secret} without a checksum. Both forms always verify.",
        &API_KEY_BRAND,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"keywright.max_api_key_lifetime",
        c"Longest lifetime of a new API key.",
        c"With a unit of Postgres, such as 90d or 12h; 0 for no cap.",
        &MAX_API_KEY_LIFETIME,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    // SAFETY: the prefix is a static C string; called once while the library is loaded.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"keywright".as_ptr()) }
}

pub fn api_key_form() -> Form {
    match API_KEY_BRAND.get() {
        Brand::Keywright => Form::Branded,
        Brand::None => Form::Bare,
    }
}

/// The cap in microseconds, if there is one.
pub fn max_api_key_lifetime() -> Option<i64> {
    let seconds = MAX_API_KEY_LIFETIME.get();
    (seconds > 0).then(|| i64::from(seconds) * 1_000_000)
}
