//! Writes what is noted into the tables: a launcher that waits, and a worker for each database that has something to write.
//!
//! The launcher is connected to no database, and a worker ends when it has written: one that stayed connected would be in the
//! way of DROP DATABASE and of CREATE DATABASE ... TEMPLATE.
//!
//! Nothing in one database holds up another one, or a stop of the server: a worker waits for no lock longer than a second, works no
//! longer than `LIMIT`, and none waits for it alone. Both processes end at any moment at which a backend would.

use super::memory::{self, Memory};
use crate::{clock, settings, spi};
use keywright_core::usage::{NEVER, Noted};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, SignalWakeFlags};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{pg_guard, pg_sys};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_int};
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// For so long (in microseconds) a key that is not there may still be one of a transaction that has yet to commit.
const PATIENCE: i64 = 600_000_000;

/// Between two rounds there is at least this, however full the memory is.
const PAUSE: Duration = Duration::from_secs(1);

/// A worker that takes longer is ended; what it had to write is written later.
const LIMIT: Duration = Duration::from_secs(30);

/// Keys in one transaction, so that what a worker has done is not lost when it is ended.
const AT_ONCE: usize = 10_000;

/// So many workers at once, of those that the server can have.
const MOST_WORKERS: usize = 2;

/// Called while the server loads its libraries.
pub fn register() {
    BackgroundWorkerBuilder::new("keywright usage launcher")
        .set_library("keywright")
        .set_function("keywright_usage_launcher")
        .enable_spi_access()
        .set_restart_time(Some(Duration::from_secs(5)))
        .load();
}

/// Starts when the server takes writes: on a standby that is when it is promoted.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn keywright_usage_launcher(_argument: pg_sys::Datum) {
    receive_signals();
    // SAFETY: called once, in a worker that asked for it. Without a database it sees what all databases share.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(null_mut(), null_mut(), 0) }
    let Some(memory) = memory::get() else { return };
    memory.launcher_is_here();
    let mut last: Option<Instant> = None;
    loop {
        let left = last.map_or(Duration::ZERO, |last| {
            let interval = if memory.is_in_need() { PAUSE } else { settings::usage_flush_interval() };
            interval.saturating_sub(last.elapsed())
        });
        if left.is_zero() {
            memory.help_is_here();
            round(memory);
            last = Some(Instant::now());
        } else {
            wait(left);
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: outside a transaction, as a backend does it between two statements.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
        }
    }
}

/// A worker is to be ended as a backend is, at whatever it waits for. pgrx's own way only makes a note of it.
fn receive_signals() {
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
    }
    #[cfg(not(feature = "pg18"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: Postgres's own handler, set before signals are let in.
    unsafe { pqsignal(pg_sys::SIGTERM as c_int, Some(die)) };
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
}

/// Waits for news, at most so long.
fn wait(longest: Duration) {
    const FOR: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let longest = longest.as_millis() as std::ffi::c_long + 1;
    end_if_told();
    // SAFETY: this process's latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, FOR as c_int, longest, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    end_if_told();
    pg_sys::check_for_interrupts!();
}

/// Without the message that is the rule, because each stop of the server tells it.
fn end_if_told() {
    // SAFETY: a flag of a signal handler. With 1 the server starts the process again, unless it is itself going down.
    unsafe {
        if (&raw const pg_sys::ProcDiePending).read_volatile() != 0 {
            pg_sys::proc_exit(1)
        }
    }
}

fn round(memory: &Memory) {
    let now = clock::now();
    let mut workers = Workers::default();
    // First these: a database that is noted was there before it was.
    let noted = memory.databases();
    if noted.is_empty() {
        return;
    }
    let there = databases();
    for (database, dirty) in noted {
        match there.get(&database) {
            None => memory.forget(database),
            Some(_) if !dirty => memory.flushed(database, now),
            Some(true) => workers.start(database),
            Some(false) => (),
        }
    }
    workers.finish(0);
}

/// The databases of the server, and whether they take connections.
fn databases() -> HashMap<u32, bool> {
    const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let mut found = HashMap::new();
    // SAFETY: a transaction of its own, and a scan of a table that all databases share. Each row begins as its struct says.
    unsafe {
        pg_sys::StartTransactionCommand();
        _ = pg_sys::GetTransactionSnapshot();
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, LOCK);
        let scan = pg_sys::table_beginscan_catalog(table, 0, null_mut());
        loop {
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if row.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_database>();
            // The rest of a DROP DATABASE that was interrupted can only be dropped.
            if row.datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB {
                found.insert(row.oid.to_u32(), row.datallowconn);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(table, LOCK);
        pg_sys::CommitTransactionCommand();
    }
    found
}

/// Those that are at work.
#[derive(Default)]
struct Workers(Vec<(*mut pg_sys::BackgroundWorkerHandle, Instant)>);

impl Workers {
    /// Where none can be had, the next round tries again.
    fn start(&mut self, database: u32) {
        self.finish(MOST_WORKERS - 1);
        // SAFETY: this process's id.
        let own = unsafe { pg_sys::MyProcPid };
        let builder = BackgroundWorkerBuilder::new("keywright usage flush")
            .set_library("keywright")
            .set_function("keywright_usage_flush")
            .set_argument(Some(pg_sys::Datum::from(database)))
            .enable_spi_access()
            .set_notify_pid(own);
        let mut worker = pg_sys::BackgroundWorker::from(&builder);
        let mut handle = null_mut();
        // SAFETY: the server copies the worker, and gives a handle that is this process's to free.
        if unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) } {
            self.0.push((handle, Instant::now()));
        }
    }

    /// Waits until no more than so many are left.
    fn finish(&mut self, most: usize) {
        loop {
            self.0.retain(|(handle, started)| is_at_work(*handle, *started));
            if self.0.len() <= most {
                break;
            }
            // The server tells when one begins and when it ends.
            wait(Duration::from_secs(1));
        }
    }
}

/// Ends it when it has been for too long, and frees it when it has ended.
fn is_at_work(handle: *mut pg_sys::BackgroundWorkerHandle, started: Instant) -> bool {
    use pg_sys::BgwHandleStatus::{BGWH_NOT_YET_STARTED, BGWH_STARTED};
    let mut process = 0;
    // SAFETY: a handle that was not freed.
    unsafe {
        let status = pg_sys::GetBackgroundWorkerPid(handle, &mut process);
        if status != BGWH_STARTED && status != BGWH_NOT_YET_STARTED {
            pg_sys::pfree(handle.cast());
            return false;
        }
        if started.elapsed() > LIMIT {
            pg_sys::TerminateBackgroundWorker(handle);
        }
    }
    true
}

#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn keywright_usage_flush(database: pg_sys::Datum) {
    receive_signals();
    let database = database.value() as u32;
    for (name, value) in SETTINGS {
        set(name, value);
    }
    // SAFETY: called once, in a worker that asked for it; as the superuser of the installation.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(pg_sys::Oid::from(database), pg_sys::InvalidOid, 0);
    }
    let Some(memory) = memory::get() else { return };
    let now = clock::now();
    for noted in memory.dirty(database).chunks(AT_ONCE) {
        match BackgroundWorker::transaction(AssertUnwindSafe(|| write(noted))) {
            // Only now, when it is committed: had this process died before, it would be written again.
            Written::Without(missing) => {
                let done =
                    |noted: &&Noted| noted.presented < now - PATIENCE || !missing.contains(&noted.key.id());
                memory.clean(&noted.iter().filter(done).copied().collect::<Vec<_>>());
            }
            Written::NotOurs => return memory.forget_keys(database),
        }
    }
    memory.flushed(database, now);
}

/// Set before the worker connects, so that nobody's settings for the database or the superuser matter: those only fill in what is not set.
/// The commit waits for this server's disk and for no standby.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"synchronous_commit", c"local"),
    (c"session_replication_role", c"origin"),
    (c"statement_timeout", c"0"),
    #[cfg(not(feature = "pg15"))]
    (c"transaction_timeout", c"0"),
    (c"lock_timeout", c"1s"),
];

fn set(name: &CStr, value: &CStr) {
    // SAFETY: both are C strings, which are copied.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

enum Written {
    /// All but these keys, of which there are none.
    Without(HashSet<String>),
    /// There is no such table of ours: the extension was dropped.
    NotOurs,
}

fn write(noted: &[Noted]) -> Written {
    const MISSING: &str = r#"
        SELECT n.key_id FROM pg_catalog.unnest($1) AS n (key_id)
         WHERE NOT EXISTS (SELECT FROM keywright.api_keys AS k WHERE k.key_id = n.key_id COLLATE "C")"#;
    // Forward only, and where nothing moves nothing is written.
    const WRITE: &str = r#"
        INSERT INTO keywright.api_key_usage AS u (key_id, last_used_at, last_presented_at)
        SELECT n.key_id, n.used, n.presented
          FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS n (key_id, used, presented)
         WHERE EXISTS (SELECT FROM keywright.api_keys AS k WHERE k.key_id = n.key_id COLLATE "C")
         ORDER BY n.key_id COLLATE "C"
        ON CONFLICT (key_id) DO UPDATE
           SET last_used_at = greatest(u.last_used_at, excluded.last_used_at),
               last_presented_at = greatest(u.last_presented_at, excluded.last_presented_at)
         WHERE excluded.last_used_at > u.last_used_at
            OR (u.last_used_at IS NULL AND excluded.last_used_at IS NOT NULL)
            OR excluded.last_presented_at > u.last_presented_at"#;
    let Some(owner) = hold_table() else { return Written::NotOurs };
    let moment = |moment| TimestampWithTimeZone::try_from(moment).ok().filter(|_| moment != NEVER);
    let ids: Vec<String> = noted.iter().map(|noted| noted.key.id()).collect();
    let used: Vec<Option<TimestampWithTimeZone>> = noted.iter().map(|noted| moment(noted.used)).collect();
    let presented: Vec<Option<TimestampWithTimeZone>> =
        noted.iter().map(|noted| moment(noted.presented)).collect();
    as_role(owner, || {
        // First, so that one that comes to be in between is written, and written again.
        let missing = spi::read_once(MISSING, &[ids.clone().into()], |row| row.must(1));
        spi::count_once(WRITE, &[ids.into(), used.into(), presented.into()]);
        Written::Without(missing.into_iter().collect())
    })
}

/// The owner of the table of this extension, which nobody else can change or drop from here on. When the extension was
/// dropped, somebody else's table may have the name, with a trigger that waits for a superuser.
fn hold_table() -> Option<pg_sys::Oid> {
    const FIND: &str = r#"
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = 'keywright' AND c.relname = 'api_key_usage' AND c.relkind = 'r'"#;
    const OURS: &str = r#"
        SELECT c.relowner
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_depend AS d
            ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
               AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
          JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
         WHERE c.oid = $1 AND n.nspname = 'keywright' AND c.relname = 'api_key_usage' AND e.extname = 'keywright'"#;
    let table: pg_sys::Oid = spi::read(FIND, &[], |row| row.must(1)).pop()?;
    // SAFETY: a lock by number, also of what is gone meanwhile; it is held until the transaction ends.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE) }
    spi::read(OURS, &[table.into()], |row| row.must(1)).pop()
}

/// What is done may not go further than the owner's rights, nor leave anything behind in the session.
fn as_role<R>(role: pg_sys::Oid, act: impl FnOnce() -> R) -> R {
    let (mut before, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: what was in force is put back; if an error ends the transaction, Postgres does.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut before, &mut context);
        let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE;
        pg_sys::SetUserIdAndSecContext(role, context | restricted as i32);
    }
    let result = act();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(before, context) }
    result
}
