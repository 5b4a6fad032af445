//! The settings, each with who may change it and why.

use crate::error::Failure;
use crate::spi;
use keywright_core::token::Form;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// A superuser's: a session that changed it would make the next request in it anonymous.
static API_KEY_HEADER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"x-api-key"));

/// A superuser's, as the header is. Read by `check_request`, by its name.
static REQUIRE_API_KEY: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Anyone's: it only chooses between the services of the session's own login.
static SERVICE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// A superuser's: whoever could turn it off would hide a revocation from who listens.
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Days. A superuser's: an admin of keywright must not shorten the memory of what they did.
static AUDIT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(365);

/// Keys whose usage is kept in memory at a time; the server's, because its memory is allocated when it starts.
static USAGE_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(250_000);

/// Seconds. The server's: its worker reads it.
static USAGE_FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);

/// A superuser's: whoever could turn it off would use a key unseen.
static TRACK_USAGE: GucSetting<bool> = GucSetting::<bool>::new(true);

/// True when somebody had set the cap before the library was loaded, so that Postgres had to judge then
/// whether they may.
static CAP_WAS_SET: AtomicBool = AtomicBool::new(false);
static RETENTION_WAS_SET: AtomicBool = AtomicBool::new(false);

const CAP: &CStr = c"keywright.max_api_key_lifetime";
const RETENTION: &CStr = c"keywright.audit_retention";

pub fn define() {
    CAP_WAS_SET.store(is_set(CAP), Ordering::Relaxed);
    RETENTION_WAS_SET.store(is_set(RETENTION), Ordering::Relaxed);
    GucRegistry::define_enum_guc(
        c"keywright.api_key_brand",
        c"Brand of new API keys.",
        c"kwk_, or empty for the bare form {id}-{secret} without a checksum. Both forms always verify.",
        &API_KEY_BRAND,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        CAP,
        c"Longest lifetime of a new API key.",
        c"With a unit of Postgres, such as 90d or 12h; 0 for no cap.",
        &MAX_API_KEY_LIFETIME,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"keywright.api_key_header",
        c"Header in which PostgREST's clients send their API key.",
        c"Compared without regard to case by keywright.check_request.",
        &API_KEY_HEADER,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"keywright.require_api_key",
        c"Refuse PostgREST's requests without an API key.",
        c"Off, they are the anonymous role's or that of their JWT.",
        &REQUIRE_API_KEY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"keywright.service",
        c"Service this session belongs to.",
        c"For keywright.postgrest_config, where several services log in as the same role.",
        &SERVICE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"keywright.notify",
        c"Notify the channel keywright of every change.",
        c"A transaction that notifies takes a lock of the whole server to commit, and can not be prepared.",
        &NOTIFY,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        RETENTION,
        c"Days for which audit events are kept.",
        c"What is older may be deleted by keywright.prune_audit_events and keywright.maintain.",
        &AUDIT_RETENTION,
        1,
        36_525,
        GucContext::Suset,
        GucFlags::default(),
    );
    define_usage();
    // SAFETY: the prefix is a static C string; called once while the library is loaded.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"keywright".as_ptr()) }
}

fn define_usage() {
    // Postgres takes a setting of the server's memory only while the server starts.
    if is_preloading() {
        GucRegistry::define_int_guc(
            c"keywright.usage_slots",
            c"API keys whose usage is kept in memory at a time.",
            c"32 bytes each; 0 keeps none, and counts no verifications.",
            &USAGE_SLOTS,
            0,
            16_777_216,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
    GucRegistry::define_int_guc(
        c"keywright.usage_flush_interval",
        c"Time between two writes of the usage of API keys from memory into the table.",
        c"A crash loses what was noted since the last one.",
        &USAGE_FLUSH_INTERVAL,
        1,
        3_600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"keywright.track_usage",
        c"Note when API keys are used, and count how verifications end.",
        c"Only where keywright is in shared_preload_libraries.",
        &TRACK_USAGE,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// True while the server loads its libraries, before it has any other process.
pub fn is_preloading() -> bool {
    // SAFETY: a flag of this process.
    unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress }
}

pub fn usage_slots() -> i32 {
    USAGE_SLOTS.get()
}

pub fn usage_flush_interval() -> Duration {
    Duration::from_secs(USAGE_FLUSH_INTERVAL.get().max(1) as u64)
}

#[inline]
pub fn track_usage() -> bool {
    TRACK_USAGE.get()
}

pub fn api_key_form() -> Form {
    match API_KEY_BRAND.get() {
        Brand::Keywright => Form::Branded,
        Brand::None => Form::Bare,
    }
}

/// The service this session says it belongs to.
pub fn service() -> Option<String> {
    SERVICE.get().and_then(|service| service.into_string().ok())
}

pub fn notify() -> bool {
    NOTIFY.get()
}

/// The cap in microseconds, if there is one.
pub fn max_api_key_lifetime() -> Result<Option<i64>, Failure<'static>> {
    let seconds = MAX_API_KEY_LIFETIME.get();
    if seconds == 0 {
        require_not_lost(CAP, &CAP_WAS_SET)?;
    }
    Ok((seconds > 0).then(|| i64::from(seconds) * 1_000_000))
}

/// Days.
pub fn audit_retention() -> Result<i32, Failure<'static>> {
    require_not_lost(RETENTION, &RETENTION_WAS_SET)?;
    Ok(AUDIT_RETENTION.get())
}

fn is_set(setting: &CStr) -> bool {
    // SAFETY: looks a setting up by name; null when there is none.
    unsafe { !pgrx::pg_sys::GetConfigOption(setting.as_ptr(), true, false).is_null() }
}

/// A client can name a superuser's setting in its start-up options. It may not, so Postgres falls back to the
/// default, and the administrator's value is lost: that must not be a way around it.
fn require_not_lost(setting: &CStr, was_set: &AtomicBool) -> Result<(), Failure<'static>> {
    const DEFAULT: &str = "SELECT FROM pg_catalog.pg_settings WHERE name = $1 AND source = 'default'";
    let lost = was_set.load(Ordering::Relaxed)
        && !spi::read(DEFAULT, &[spi::text(setting.to_bytes())], |_| ()).is_empty();
    if lost { Err(Failure::Overridden { setting: setting.to_string_lossy().into_owned() }) } else { Ok(()) }
}
