//! Memory that runs out ends the statement with 53200, as it does in C, and nothing else.
//!
//! Left alone, three things would end the process, and with it the server:
//!
//! - Rust aborts when it is refused memory. A hook raises an error instead (`refused`). The hook is unstable in Rust; nothing
//!   stable lets an allocation that fails unwind.
//! - Raising an error takes memory: for the panic, for the copy that pgrx makes of an error of Postgres, for the report.
//!   While one is on its way, Rust gets memory from a reserve (`Reserve`), Postgres from a context that has a block to begin with.
//! - pgrx copies an error of Postgres while a second one would come back to the same place, and writes its report where
//!   nothing catches a panic. The linker sends the functions that it calls there here first (`build.rs`).
//!
//! If even the reserve is used up, the session ends (`FATAL`), and the server goes on.

use crate::own::Own;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, pg_sys};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::ptr::null_mut;

const MESSAGE: &CStr = c"out of memory";
const CODE: PgSqlErrorCode = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Allocator;

// SAFETY: memory is the system's, or the reserve's, which is told apart by its address.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        let given = unsafe { System.alloc(layout) };
        if given.is_null() { RESERVE.take(layout) } else { given }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        let mut given = unsafe { System.alloc_zeroed(layout) };
        if given.is_null() {
            given = RESERVE.take(layout);
            if !given.is_null() {
                // SAFETY: it was just given, and is as large.
                unsafe { given.write_bytes(0, layout.size()) }
            }
        }
        given
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if RESERVE.has(at) {
            RESERVE.give_back();
        } else {
            // SAFETY: the caller's promise, handed on.
            unsafe { System.dealloc(at, layout) }
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !RESERVE.has(at) {
            // SAFETY: the caller's promise, handed on.
            let given = unsafe { System.realloc(at, layout, size) };
            if !given.is_null() {
                return given;
            }
        }
        // SAFETY: the caller's promise; both are as large as what is copied.
        unsafe {
            let given = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !given.is_null() {
                given.copy_from_nonoverlapping(at, layout.size().min(size));
                self.dealloc(at, layout);
            }
            given
        }
    }
}

/// Given out from the front; when all is given back, it begins anew.
struct Reserve {
    bytes: UnsafeCell<[u8; Reserve::SIZE]>,
    used: Cell<usize>,
    given: Cell<usize>,
}

static RESERVE: Own<Reserve> =
    Own::new(Reserve { bytes: UnsafeCell::new([0; Reserve::SIZE]), used: Cell::new(0), given: Cell::new(0) });

impl Reserve {
    /// Of which only what is used is ever touched.
    const SIZE: usize = 256 * 1024;

    fn start(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    fn has(&self, at: *const u8) -> bool {
        at.addr().wrapping_sub(self.start().addr()) < Reserve::SIZE
    }

    /// Null when no error is on its way, or nothing is left.
    fn take(&self, layout: Layout) -> *mut u8 {
        if !is_under_way() {
            return null_mut();
        }
        let free = self.start().wrapping_add(self.used.get());
        let begin = self.used.get() + free.align_offset(layout.align());
        match begin.checked_add(layout.size()) {
            Some(end) if end <= Reserve::SIZE => {
                self.used.set(end);
                self.given.set(self.given.get() + 1);
                self.start().wrapping_add(begin)
            }
            _ => null_mut(),
        }
    }

    fn give_back(&self) {
        self.given.set(self.given.get() - 1);
        if self.given.get() == 0 {
            self.used.set(0);
        }
    }
}

/// An error is being made here, or copied or reported by pgrx.
static MAKING: Own<Cell<bool>> = Own::new(Cell::new(false));
static COPYING: Own<Cell<bool>> = Own::new(Cell::new(false));
static REPORTING: Own<Cell<Option<Stacks>>> = Own::new(Cell::new(None));

/// Where Postgres goes when an error is raised.
#[derive(Clone, Copy)]
struct Stacks {
    exception: *mut pg_sys::sigjmp_buf,
    context: *mut pg_sys::ErrorContextCallback,
}

fn is_under_way() -> bool {
    MAKING.get() || COPYING.get() || REPORTING.get().is_some() || std::thread::panicking()
}

/// Where Postgres makes copies of errors; it has a block of its own from the start.
static COPIES: Own<Cell<pg_sys::MemoryContext>> = Own::new(Cell::new(null_mut()));

/// What is there before the library does anything, or Postgres raises the error by itself.
const ENOUGH: usize = 1 << 20;
/// The stack grows by the page, and where it can't, the process ends.
const STACK: usize = 256 * 1024;
const BLOCK: usize = 16 * 1024;

// The bare functions of Postgres, without pgrx's guard.
unsafe extern "C-unwind" {
    fn palloc(size: pg_sys::Size) -> *mut c_void;
    fn palloc0(size: pg_sys::Size) -> *mut c_void;
    fn pstrdup(text: *const c_char) -> *mut c_char;
    fn pfree(at: *mut c_void);
    fn MemoryContextReset(context: pg_sys::MemoryContext);
    fn pg_re_throw() -> !;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    fn __real_errstart(level: c_int, domain: *const c_char) -> bool;
    fn __real_errcode(code: c_int) -> c_int;
    fn __real_CopyErrorData() -> *mut pg_sys::ErrorData;
    fn __real_FlushErrorState();
}

/// Called first of all, while the library is loaded, with nothing on the stack that would have to be dropped.
pub fn require() {
    // SAFETY: memory that is given back at once; an error jumps over frames that hold nothing.
    unsafe { pfree(palloc(ENOUGH)) }
}

/// Called while the library is loaded. What is allocated at its first use is used here for the first time.
pub fn prepare() {
    std::alloc::set_alloc_error_hook(refused);
    black_box(&mut [0u8; STACK]);
    _ = catch_unwind(|| panic_any(()));
    // SAFETY: a context that stays as long as the process.
    COPIES.set(unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"keywright errors".as_ptr(),
            BLOCK,
            BLOCK,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    });
}

/// Rust was refused memory: an error that unwinds, like any other.
fn refused(layout: Layout) {
    if is_under_way() {
        end_session();
    }
    MAKING.set(true);
    let detail = format!("Failed on request of size {}.", layout.size());
    let report = ErrorReport::new(CODE, "out of memory", "keywright").set_detail(detail);
    MAKING.set(false);
    panic_any(report);
}

/// Unwinds nothing and comes back from nowhere: Postgres ends the transaction, tells the client and lets go of what is shared.
fn end_session() -> ! {
    // SAFETY: an error of this level does not return.
    unsafe {
        __real_errstart(PgLogLevel::FATAL as c_int, null_mut());
        __real_errcode(CODE as c_int);
        errmsg(MESSAGE.as_ptr());
        errfinish(c"memory.rs".as_ptr(), line!() as c_int, null_mut());
    }
    std::process::abort()
}

/// pgrx reports an error: from here to `errcode` it copies texts by functions of Postgres.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_errstart(level: c_int, domain: *const c_char) -> bool {
    // SAFETY: the caller's promise, handed on.
    let is_wanted = unsafe { __real_errstart(level, domain) };
    if level >= PgLogLevel::ERROR as c_int {
        // SAFETY: variables of a process that has a single thread.
        let stacks =
            unsafe { Stacks { exception: pg_sys::PG_exception_stack, context: pg_sys::error_context_stack } };
        REPORTING.set(Some(stacks));
    }
    is_wanted
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_errcode(code: c_int) -> c_int {
    REPORTING.set(None);
    // SAFETY: the caller's promise, handed on.
    unsafe { __real_errcode(code) }
}

/// pgrx has caught an error of Postgres: from here to `FlushErrorState` it copies it, and nothing may fail.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_CopyErrorData() -> *mut pg_sys::ErrorData {
    if let Some(stacks) = REPORTING.take() {
        // It came up while another one was reported, by functions that nothing catches a panic of. It takes the other's place.
        // SAFETY: where the other would have gone; the frames in between hold nothing.
        unsafe {
            pg_sys::PG_exception_stack = stacks.exception;
            pg_sys::error_context_stack = stacks.context;
            pg_re_throw()
        }
    }
    // SAFETY: a context of our own, in which nothing is left but what a copy that failed has left; a guard of its own around what
    // may fail. An error in here is one of memory, and short, because nothing adds context to it: its copy fits.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let callbacks = pg_sys::error_context_stack;
        let copies = COPIES.get();
        if !copies.is_null() {
            MemoryContextReset(copies);
            pg_sys::CurrentMemoryContext = copies;
        }
        pg_sys::error_context_stack = null_mut();
        COPYING.set(true);
        let copied =
            catch_unwind(AssertUnwindSafe(|| pg_sys::ffi::pg_guard_ffi_boundary(|| __real_CopyErrorData())));
        COPYING.set(true);
        let copy = copied.unwrap_or_else(|_| {
            if !copies.is_null() {
                MemoryContextReset(copies);
                pg_sys::CurrentMemoryContext = copies;
            }
            let copy: *mut pg_sys::ErrorData = palloc0(size_of::<pg_sys::ErrorData>()).cast();
            (*copy).elevel = PgLogLevel::ERROR as c_int;
            (*copy).sqlerrcode = CODE as c_int;
            (*copy).message = pstrdup(MESSAGE.as_ptr());
            copy
        });
        pg_sys::error_context_stack = callbacks;
        pg_sys::CurrentMemoryContext = context;
        copy
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __wrap_FlushErrorState() {
    COPYING.set(false);
    // SAFETY: the caller's promise, handed on.
    unsafe { __real_FlushErrorState() }
}
