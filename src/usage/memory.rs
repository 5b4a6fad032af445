//! What is noted, in shared memory of a fixed size: when keys were used, and how verifications ended.
//!
//! A key has a place in one of two buckets of sixteen, both under one of 128 locks. A key that is there is noted under the
//! shared lock by atomic operations, so that no number of clients on one key queue. Only what changes who has a place takes
//! the lock for itself. Where both buckets are full, the oldest that is written already makes room, or else the oldest, which
//! is counted.

use super::{Kind, Outcome};
use crate::clock::Moment;
use crate::own::Own;
use crate::settings;
use keywright_core::usage::{NEVER, Noted, Packed, Unreadable, decode, encode};
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io::{self, Write};
use std::mem::size_of;
use std::ptr::null_mut;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

const NAME: &CStr = c"keywright usage";
/// In the data directory, beside what the server itself keeps of its statistics.
const FILE: &str = "pg_stat/keywright_usage.stat";
const NEW_FILE: &str = "pg_stat/keywright_usage.stat.new";

/// As many entries as there can be slots, and more.
const LARGEST: u64 = 1 << 29;

const MOST_PARTITIONS: usize = 128;
const WAYS: usize = 16;
/// Databases that have counters; those of further ones are not counted.
const DATABASES: usize = 64;
/// Counters are kept apart for groups of backends, so that they do not wait for each other's cache lines.
const STRIPES: usize = 16;
pub const COUNTERS: usize = Kind::ALL.len() * Outcome::ALL.len();

#[derive(Debug)]
#[repr(C, align(128))]
struct Head {
    dropped: AtomicU64,
    /// Something had to be dropped: the launcher shall not wait for the interval.
    in_need: AtomicBool,
    /// The launcher's, in memory that stays as long as the server.
    latch: AtomicPtr<pg_sys::Latch>,
}

#[derive(Debug)]
#[repr(C, align(128))]
struct Stripe([AtomicU64; COUNTERS]);

/// What is counted in one database.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Database {
    /// 0: nobody's.
    oid: AtomicU32,
    /// What was noted before this moment is in the table. 0: nothing is known.
    flushed_at: AtomicI64,
    stripes: [Stripe; STRIPES],
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// `Packed`, or 0 for a place that is free.
    keys: [AtomicU64; WAYS],
    databases: [AtomicU32; WAYS],
    /// 1: not written yet.
    dirty: [AtomicU32; WAYS],
    used: [AtomicI64; WAYS],
    presented: [AtomicI64; WAYS],
}

/// How many places are in which state.
#[derive(Debug, Default)]
pub struct Slots {
    pub free: u64,
    pub clean: u64,
    pub dirty: u64,
}

#[derive(Debug)]
pub struct Memory {
    head: &'static Head,
    databases: &'static [Database],
    buckets: &'static [Bucket],
    /// One for each partition of the buckets, and one for the databases.
    locks: *mut pg_sys::LWLockPadded,
}

/// Null where the library was not loaded with the server.
static MEMORY: AtomicPtr<Memory> = AtomicPtr::new(null_mut());

type Hook = Option<unsafe extern "C-unwind" fn()>;
static BEFORE: OnceLock<(Hook, Hook)> = OnceLock::new();

/// This backend's database, once it was looked for.
static OWN: Own<Cell<Option<Option<&'static Database>>>> = Own::new(Cell::new(None));

#[inline]
pub fn get() -> Option<&'static Memory> {
    // SAFETY: null, or what `startup` made, which is never freed.
    unsafe { MEMORY.load(Relaxed).as_ref() }
}

/// Called while the server loads its libraries.
pub fn request() {
    // SAFETY: the hooks of a process that has a single thread. Those of other libraries are called first.
    unsafe {
        _ = BEFORE.set((pg_sys::shmem_request_hook, pg_sys::shmem_startup_hook));
        pg_sys::shmem_request_hook = Some(on_request);
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_request() {
    if let Some((Some(before), _)) = BEFORE.get() {
        // SAFETY: another library's hook, called as the server would.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| before()) }
    }
    // SAFETY: in the hook that is there for this.
    unsafe {
        pg_sys::RequestAddinShmemSpace(size(buckets()));
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), MOST_PARTITIONS as i32 + 1);
    }
}

/// Called when the server starts, and again after a crash, when the memory is all zeros again.
#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    if let Some((_, Some(before))) = BEFORE.get() {
        // SAFETY: another library's hook, called as the server would.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| before()) }
    }
    let (buckets, mut found) = (buckets(), false);
    // SAFETY: in the hook that is there for this, under the lock it has to be done under, whose number has been the same in every
    // version. The memory has the size that was asked for and begins at a cache line of 128 bytes. New memory is zeroed,
    // which is how head, databases and buckets begin.
    let memory = unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(21)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let start: *mut u8 = pg_sys::ShmemInitStruct(NAME.as_ptr(), size(buckets), &mut found).cast();
        assert!(start.cast::<Head>().is_aligned(), "shared memory is not aligned");
        if !found {
            start.write_bytes(0, size(buckets));
        }
        let databases = start.add(size_of::<Head>());
        let memory = Memory {
            head: &*start.cast(),
            databases: slice::from_raw_parts(databases.cast(), DATABASES),
            buckets: slice::from_raw_parts(databases.add(DATABASES * size_of::<Database>()).cast(), buckets),
            locks: pg_sys::GetNamedLWLockTranche(NAME.as_ptr()),
        };
        pg_sys::LWLockRelease(lock);
        memory
    };
    let memory: &'static Memory = Box::leak(Box::new(memory));
    if !found {
        memory.load();
    }
    MEMORY.store(std::ptr::from_ref(memory).cast_mut(), Relaxed);
    // SAFETY: the server's main process calls it when every other has ended. A list of its own that starts anew after a crash.
    unsafe {
        if !pg_sys::IsUnderPostmaster {
            pg_sys::on_shmem_exit(Some(on_exit), pg_sys::Datum::from(0));
        }
    }
}

/// Keeps what was not written, over an orderly shutdown.
unsafe extern "C-unwind" fn on_exit(code: i32, _: pg_sys::Datum) {
    if let (0, Some(memory)) = (code, get()) {
        // Nothing may come out of here: the server is going down.
        _ = std::panic::catch_unwind(|| {
            if let Err(error) = memory.save() {
                pgrx::log!("keywright could not keep when keys were used: {FILE}: {error}");
            }
        });
    }
}

fn buckets() -> usize {
    (settings::usage_slots() as usize).div_ceil(WAYS)
}

fn size(buckets: usize) -> usize {
    size_of::<Head>() + DATABASES * size_of::<Database>() + buckets * size_of::<Bucket>()
}

/// The lock of a partition while this lives.
struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: acquired when this was made.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}

/// Where a key may be: one lock, two buckets.
#[derive(Debug, Clone, Copy)]
struct Place {
    partition: usize,
    buckets: [usize; 2],
}

/// Multiplied and folded, so that every bit of the result depends on every bit (the end of SplitMix64).
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// From 0 to below `many`, by 32 bits of a hash.
fn spread(bits: u64, many: usize) -> usize {
    (((bits & 0xffff_ffff) * many as u64) >> 32) as usize
}

pub fn own_database() -> u32 {
    // SAFETY: set once, when the backend connects.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

/// Some small number that tells backends apart.
fn backend() -> usize {
    // SAFETY: set once, when the process starts.
    #[cfg(feature = "pg15")]
    let number = unsafe { pg_sys::MyBackendId };
    // SAFETY: the same by its name of now.
    #[cfg(not(feature = "pg15"))]
    let number = unsafe { pg_sys::MyProcNumber };
    number as usize
}

impl Memory {
    /// Notes that a key of this backend's database was presented, and whether it was accepted.
    pub fn note(&self, key: Packed, at: Moment, accepted: bool) {
        let used = if accepted { at } else { NEVER };
        self.put(Noted { database: own_database(), key, used, presented: at });
    }

    /// Does what noting does, and notes nothing.
    pub fn pass(&self, key: Packed) {
        let place = self.place(own_database(), key);
        let _held = self.hold(place.partition, pg_sys::LWLockMode::LW_SHARED);
        let (bucket, way) =
            self.find(place, own_database(), key).unwrap_or((&self.buckets[place.buckets[0]], 0));
        bucket.used[way].fetch_max(NEVER, Relaxed);
        bucket.presented[way].fetch_max(NEVER, Relaxed);
        bucket.dirty[way].fetch_or(0, Release);
    }

    fn put(&self, noted: Noted) {
        let place = self.place(noted.database, noted.key);
        {
            let _held = self.hold(place.partition, pg_sys::LWLockMode::LW_SHARED);
            if let Some((bucket, way)) = self.find(place, noted.database, noted.key) {
                return bucket.forward(way, &noted);
            }
        }
        let mut dropped = false;
        {
            let _held = self.hold(place.partition, pg_sys::LWLockMode::LW_EXCLUSIVE);
            // Another one may have put it there meanwhile.
            let (bucket, way) = self.find(place, noted.database, noted.key).unwrap_or_else(|| {
                let (bucket, way) = self.room(place);
                dropped = bucket.is_dirty(way);
                bucket.settle(way, &noted);
                (bucket, way)
            });
            bucket.forward(way, &noted);
        }
        if dropped {
            self.head.dropped.fetch_add(1, Relaxed);
            self.wake();
        }
    }

    /// When a key of this backend's database was used and presented, as far as it is noted here.
    pub fn look(&self, key: Packed) -> Option<(Moment, Moment)> {
        let place = self.place(own_database(), key);
        let _held = self.hold(place.partition, pg_sys::LWLockMode::LW_SHARED);
        let (bucket, way) = self.find(place, own_database(), key)?;
        Some((bucket.used[way].load(Relaxed), bucket.presented[way].load(Relaxed)))
    }

    fn place(&self, database: u32, key: Packed) -> Place {
        let hash = mix(key.number() ^ (u64::from(database) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let partitions = self.partitions();
        let partition = spread(hash, partitions);
        // Buckets belong to partitions in turn.
        let many = (self.buckets.len() - partition).div_ceil(partitions);
        let buckets = [hash >> 32, mix(hash)].map(|bits| partition + partitions * spread(bits, many));
        Place { partition, buckets }
    }

    fn partitions(&self) -> usize {
        self.buckets.len().min(MOST_PARTITIONS)
    }

    fn find(&self, place: Place, database: u32, key: Packed) -> Option<(&'static Bucket, usize)> {
        place.buckets.into_iter().find_map(|at| {
            let bucket = &self.buckets[at];
            let holds = |way: &usize| {
                bucket.keys[*way].load(Relaxed) == key.number()
                    && bucket.databases[*way].load(Relaxed) == database
            };
            (0..WAYS).find(holds).map(|way| (bucket, way))
        })
    }

    /// A place that is free, in the emptier bucket; or else the oldest that is written; or else that of a key that can move to
    /// its other bucket, so that hardly any place stays free where others are wanted; or else the oldest.
    fn room(&self, place: Place) -> (&'static Bucket, usize) {
        let [one, other] = place.buckets.map(|at| &self.buckets[at]);
        let emptier = if other.free() > one.free() { other } else { one };
        if let Some(way) = emptier.free_way() {
            return (emptier, way);
        }
        let ways = || [one, other].into_iter().flat_map(|bucket| (0..WAYS).map(move |way| (bucket, way)));
        let age = |(bucket, way): &(&Bucket, usize)| bucket.presented[*way].load(Relaxed);
        ways()
            .filter(|(bucket, way)| !bucket.is_dirty(*way))
            .min_by_key(age)
            .or_else(|| ways().find(|(bucket, way)| self.moves_over(bucket, *way)))
            .or_else(|| ways().min_by_key(age))
            .unwrap_or((one, 0))
    }

    /// Moves a key that is not written to the other of its buckets, if there is room.
    fn moves_over(&self, bucket: &Bucket, way: usize) -> bool {
        let Some(noted) = bucket.noted(way) else { return false };
        let buckets = self.place(noted.database, noted.key).buckets.map(|at| &self.buckets[at]);
        let Some((to, free)) = buckets.into_iter().find_map(|to| to.free_way().map(|free| (to, free))) else {
            return false;
        };
        to.settle(free, &noted);
        to.forward(free, &noted);
        bucket.dirty[way].store(0, Release);
        true
    }

    fn hold(&self, number: usize, mode: pg_sys::LWLockMode::Type) -> Held {
        // SAFETY: there are that many locks, and they live as long as the server.
        unsafe {
            let lock = &raw mut (*self.locks.add(number)).lock;
            pg_sys::LWLockAcquire(lock, mode);
            Held(lock)
        }
    }

    /// What is not written yet of a database.
    pub fn dirty(&self, database: u32) -> Vec<Noted> {
        let mut found = Vec::new();
        for partition in 0..self.partitions() {
            let _held = self.hold(partition, pg_sys::LWLockMode::LW_SHARED);
            self.each_of(partition, |bucket, way| {
                found.extend(
                    bucket.noted(way).filter(|noted| noted.database == database && bucket.is_dirty(way)),
                );
            });
        }
        found
    }

    /// Marks as written what has not changed meanwhile.
    pub fn clean(&self, written: &[Noted]) {
        for noted in written {
            let place = self.place(noted.database, noted.key);
            let _held = self.hold(place.partition, pg_sys::LWLockMode::LW_EXCLUSIVE);
            if let Some((bucket, way)) = self.find(place, noted.database, noted.key)
                && bucket.noted(way).as_ref() == Some(noted)
            {
                bucket.dirty[way].store(0, Relaxed);
            }
        }
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, database: u32) {
        self.forget_keys(database);
        let _held = self.hold(MOST_PARTITIONS, pg_sys::LWLockMode::LW_EXCLUSIVE);
        for block in self.databases.iter().filter(|block| block.oid.load(Relaxed) == database) {
            block.oid.store(0, Relaxed);
        }
    }

    /// Forgets the keys of a database.
    pub fn forget_keys(&self, database: u32) {
        for partition in 0..self.partitions() {
            let _held = self.hold(partition, pg_sys::LWLockMode::LW_EXCLUSIVE);
            self.each_of(partition, |bucket, way| {
                if bucket.databases[way].load(Relaxed) == database {
                    bucket.keys[way].store(0, Relaxed);
                    bucket.databases[way].store(0, Relaxed);
                    bucket.dirty[way].store(0, Relaxed);
                }
            });
        }
    }

    fn each_of(&self, partition: usize, mut each: impl FnMut(&Bucket, usize)) {
        for bucket in self.buckets.iter().skip(partition).step_by(self.partitions()) {
            (0..WAYS).for_each(|way| each(bucket, way));
        }
    }

    /// The databases of which something is known here, and whether some of it is not written. Without a lock: what changes
    /// meanwhile is seen the next time.
    pub fn databases(&self) -> BTreeMap<u32, bool> {
        let mut found: BTreeMap<u32, bool> =
            self.databases.iter().map(|block| (block.oid.load(Relaxed), false)).collect();
        for bucket in self.buckets {
            for way in 0..WAYS {
                *found.entry(bucket.databases[way].load(Relaxed)).or_default() |= bucket.is_dirty(way);
            }
        }
        found.remove(&0);
        found
    }

    pub fn slots(&self) -> Slots {
        let mut slots = Slots::default();
        for bucket in self.buckets {
            for way in 0..WAYS {
                match (bucket.is_free(way), bucket.is_dirty(way)) {
                    (true, _) => slots.free += 1,
                    (false, false) => slots.clean += 1,
                    (false, true) => slots.dirty += 1,
                }
            }
        }
        slots
    }

    pub fn dropped(&self) -> u64 {
        self.head.dropped.load(Relaxed)
    }

    /// One more verification in this backend's database.
    pub fn count(&self, kind: Kind, outcome: Outcome) {
        if let Some(block) = self.own() {
            block.stripes[backend() % STRIPES].0[kind.counter(outcome)].fetch_add(1, Relaxed);
        }
    }

    /// This backend's database, unless there are too many.
    pub fn own(&self) -> Option<&'static Database> {
        OWN.get().unwrap_or_else(|| {
            let own = self.database(own_database());
            OWN.set(Some(own));
            own
        })
    }

    fn database(&self, oid: u32) -> Option<&'static Database> {
        let _held = self.hold(MOST_PARTITIONS, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let at = |oid: u32| self.databases.iter().find(|block| block.oid.load(Relaxed) == oid);
        at(oid).or_else(|| {
            let block = at(0)?;
            for counter in block.stripes.iter().flat_map(|stripe| &stripe.0) {
                counter.store(0, Relaxed);
            }
            block.flushed_at.store(0, Relaxed);
            block.oid.store(oid, Relaxed);
            Some(block)
        })
    }

    /// What was noted of a database before this moment is in its table.
    pub fn flushed(&self, database: u32, at: Moment) {
        for block in self.databases.iter().filter(|block| block.oid.load(Relaxed) == database) {
            block.flushed_at.fetch_max(at, Relaxed);
        }
    }

    /// Called by the launcher: from now on it is the one to wake.
    pub fn launcher_is_here(&self) {
        // SAFETY: this process's latch, which is in the server's shared memory.
        self.head.latch.store(unsafe { pg_sys::MyLatch }, Relaxed);
    }

    fn wake(&self) {
        let latch = self.head.latch.load(Relaxed);
        if !self.head.in_need.swap(true, Relaxed) && !latch.is_null() {
            // SAFETY: the latch of a process that is or was; it stays where it is as long as the server runs.
            unsafe { pg_sys::SetLatch(latch) }
        }
    }

    pub fn is_in_need(&self) -> bool {
        self.head.in_need.load(Relaxed)
    }

    pub fn help_is_here(&self) {
        self.head.in_need.store(false, Relaxed);
    }

    /// Takes over what the last server kept. The file stays until the next shutdown, in case that this server does not come up;
    /// whoever reads it once more learns nothing new from it.
    fn load(&self) {
        let file = match fs::metadata(FILE).and_then(|file| match file.len() {
            ..=LARGEST => fs::read(FILE).map(Some),
            _ => Ok(None),
        }) {
            Ok(Some(file)) => file,
            Ok(None) => return pgrx::log!("keywright ignores {FILE}: it is damaged"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return pgrx::log!("keywright could not read when keys were used: {FILE}: {error}"),
        };
        match decode(&file) {
            Ok(entries) => entries.into_iter().for_each(|noted| self.put(noted)),
            Err(Unreadable::Foreign) => pgrx::log!("keywright ignores {FILE}: it is of another version"),
            Err(Unreadable::Damaged) => pgrx::log!("keywright ignores {FILE}: it is damaged"),
        }
    }

    /// Without a lock: there is no other process any more.
    fn save(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for partition in 0..self.partitions() {
            self.each_of(partition, |bucket, way| {
                entries.extend(bucket.noted(way).filter(|_| bucket.is_dirty(way)));
            });
        }
        if entries.is_empty() {
            return match fs::remove_file(FILE) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut file = fs::File::create(NEW_FILE)?;
        file.write_all(&encode(&entries))?;
        file.sync_all()?;
        fs::rename(NEW_FILE, FILE)
    }
}

impl Bucket {
    fn is_free(&self, way: usize) -> bool {
        self.keys[way].load(Relaxed) == 0
    }

    fn free_way(&self) -> Option<usize> {
        (0..WAYS).find(|way| self.is_free(*way))
    }

    fn free(&self) -> usize {
        (0..WAYS).filter(|way| self.is_free(*way)).count()
    }

    fn is_dirty(&self, way: usize) -> bool {
        self.dirty[way].load(Relaxed) != 0
    }

    fn noted(&self, way: usize) -> Option<Noted> {
        Some(Noted {
            key: Packed::from_number(self.keys[way].load(Relaxed))?,
            database: self.databases[way].load(Relaxed),
            used: self.used[way].load(Relaxed),
            presented: self.presented[way].load(Relaxed),
        })
    }

    /// Gives the place to a key. First it is not dirty any more: whoever is killed in the middle leaves nothing that would be
    /// kept.
    fn settle(&self, way: usize, noted: &Noted) {
        self.dirty[way].store(0, Release);
        self.used[way].store(NEVER, Release);
        self.presented[way].store(NEVER, Release);
        self.databases[way].store(noted.database, Release);
        self.keys[way].store(noted.key.number(), Release);
    }

    /// Never back: of two that come at once the later counts.
    fn forward(&self, way: usize, noted: &Noted) {
        self.used[way].fetch_max(noted.used, Relaxed);
        self.presented[way].fetch_max(noted.presented, Relaxed);
        self.dirty[way].store(1, Release);
    }
}

impl Database {
    pub fn total(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.stripes.iter().map(|stripe| stripe.0[kind.counter(outcome)].load(Relaxed)).sum()
    }

    pub fn flushed_at(&self) -> Option<Moment> {
        Some(self.flushed_at.load(Relaxed)).filter(|at| *at != 0)
    }
}
