//! heartbeat_gateway_key: "I am alive", and "am I still wanted".

use crate::lock::Lock;
use crate::{args, spi};
use pgrx::datum::Uuid;
use pgrx::pg_extern;
use pgrx::pg_sys::panic::ErrorReport;

#[pg_extern(sql = false)]
fn heartbeat_gateway_key(gateway_key_id: Option<Uuid>) -> Result<bool, ErrorReport> {
    const LIVES: &str = r#"
        SELECT FROM keywright.gateway_keys
         WHERE gateway_key_id = $1 AND (expires_at IS NULL OR expires_at > pg_catalog.clock_timestamp())"#;
    const HEARD_OF: &str = "SELECT FROM keywright.gateway_key_heartbeats WHERE gateway_key_id = $1";
    // Skipped when another heartbeat of this key is being written: it says the same.
    const BEAT: &str = r#"
        UPDATE keywright.gateway_key_heartbeats
           SET last_heartbeat_at = pg_catalog.clock_timestamp()
         WHERE gateway_key_id = (SELECT h.gateway_key_id FROM keywright.gateway_key_heartbeats AS h
                                  WHERE h.gateway_key_id = $1 FOR UPDATE SKIP LOCKED)"#;
    const FIRST: &str = r#"
        INSERT INTO keywright.gateway_key_heartbeats (gateway_key_id, last_heartbeat_at)
        VALUES ($1, pg_catalog.clock_timestamp())
        ON CONFLICT DO NOTHING"#;
    let id = args::required("gateway_key_id", gateway_key_id)?;
    if spi::read(LIVES, &[id.into()], |_| ()).is_empty() {
        return Ok(false);
    }
    if spi::read(HEARD_OF, &[id.into()], |_| ()).is_empty() {
        // The lock is only ever tried: whoever has it writes the first heartbeat, and nobody waits for that.
        if Lock::FirstHeartbeat.attempt(id.as_bytes()) {
            spi::count(FIRST, &[id.into()]);
        }
    } else {
        spi::count(BEAT, &[id.into()]);
    }
    Ok(true)
}
