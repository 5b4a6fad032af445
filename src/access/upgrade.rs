//! Routines that an upgrade script made: as an installation would have left them, and open to who holds a capability that has them.

use super::{Role, grant, queue};
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

/// Not to who lost everything here by DROP OWNED.
fn open(routine: &str) {
    const HOLDERS: &str = r#"
        SELECT DISTINCT r.oid, r.rolname::text, 'ROUTINE keywright.' || f.signature
          FROM keywright._capability_functions AS f
          JOIN keywright.access_grants AS g ON g.capability = f.capability
          JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
         WHERE f.signature = $1
           AND EXISTS (SELECT FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
                        WHERE n.nspname = 'keywright' AND a.grantee = r.oid)
         ORDER BY 1"#;
    let holders = spi::read(HOLDERS, &[routine.into()], |row| {
        (Role { oid: row.must(1), name: row.must(2) }, row.must::<String>(3))
    });
    let _by_hand = ByHand::now();
    for (role, object) in holders {
        grant(&role, &object);
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
