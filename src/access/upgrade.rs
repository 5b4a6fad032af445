//! Routines that an upgrade script made: as an installation would have left them, and open to who holds a capability that has them.

use super::{Part, Role, grant, queue};
use crate::error::Failure;
use crate::{args, spi};
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn admit(routines: Option<Array<&[u8]>>) -> Result<(), ErrorReport> {
    // SAFETY: a flag of this process.
    if !unsafe { pg_sys::creating_extension } {
        return Err(Failure::NoUpgrade.into());
    }
    queue();
    for routine in args::elements("routines", &routines)? {
        let routine = args::text("routines", routine.as_deref())?;
        own(routine);
        close(routine);
        open(routine);
    }
    Ok(())
}

/// Whoever runs the script, what it makes is the extension's owner's.
fn own(routine: &str) {
    const OWN: &str = r#"
        SELECT pg_catalog.format('ALTER ROUTINE %s OWNER TO %I', p.oid::pg_catalog.regprocedure, r.rolname)
          FROM pg_catalog.pg_proc AS p, pg_catalog.pg_extension AS e JOIN pg_catalog.pg_roles AS r ON r.oid = e.extowner
         WHERE p.oid = ('keywright.' || $1)::pg_catalog.regprocedure AND e.extname = 'keywright'"#;
    each(OWN, routine);
}

/// PUBLIC and whom somebody's ALTER DEFAULT PRIVILEGES favours have nothing.
fn close(routine: &str) {
    const CLOSE: &str = r#"
        SELECT DISTINCT pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM %s CASCADE', p.oid::pg_catalog.regprocedure,
                 CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
          FROM pg_catalog.pg_proc AS p
         CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
         WHERE p.oid = ('keywright.' || $1)::pg_catalog.regprocedure AND a.grantee <> p.proowner"#;
    each(CLOSE, routine);
}

fn each(statements: &'static str, routine: &str) {
    for statement in spi::read(statements, &[routine.into()], |row| row.must::<Vec<u8>>(1)) {
        spi::utility(&statement);
    }
}

fn open(routine: &str) {
    const HOLDERS: &str = r#"
        SELECT DISTINCT c.object, c.privilege, r.oid, r.rolname::text
          FROM keywright._capability_privileges AS c
          JOIN keywright._access AS a ON a.capability = c.capability
          JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
         WHERE c.object = 'ROUTINE keywright.' || $1
         ORDER BY 3"#;
    let holders = spi::read(HOLDERS, &[routine.into()], |row| {
        (Part::from_row(row), Role { oid: row.must(3), name: row.must(4) })
    });
    let _by_hand = ByHand::now();
    for (part, role) in holders {
        grant(&role, &part);
    }
}

/// While it lives, a GRANT is as one by hand. Postgres notes what a script of an extension grants as part of the extension,
/// and pg_dump leaves that out.
struct ByHand {
    script: bool,
}

impl ByHand {
    fn now() -> ByHand {
        // SAFETY: a flag of this process, put back when this is dropped, also when an error unwinds.
        unsafe {
            let script = pg_sys::creating_extension;
            pg_sys::creating_extension = false;
            ByHand { script }
        }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::creating_extension = self.script };
    }
}
