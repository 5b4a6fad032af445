//! authorize_api_key: is the token good, and does it permit this; one snapshot for both.

use super::{Limits, Roles, Types, path_until, source};
use crate::api_key;
use crate::args::Faults;
use crate::error::{Failure, Fault};
use crate::record::Record;
use keywright_core::printable::{is_hidden, quoted};
use keywright_core::resource::Resource;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{pg_extern, pg_sys};

#[pg_extern(sql = false)]
fn authorize_api_key(
    token: Option<&[u8]>,
    permission: Option<&[u8]>,
    resource: Option<&[u8]>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let written = permission.unwrap_or_default();
    let mut faults = Faults::default();
    let types = Types::read()?;
    let permission = faults.sift(types.question(permission));
    let resource = faults.sift(resource.map(|text| require_resource(text, &types)).transpose());
    drop(types);
    let (Some(permission), Some(resource)) = (permission, resource) else {
        return Err(Failure::from(faults).into());
    };
    let shown = if is_hidden(written) { quoted(written) } else { format!("\"{permission}\"") };
    let place = resource.as_ref().map_or("everything".into(), |at| quoted(at.to_string().as_bytes()));
    let presented = api_key::presented(token).ok_or(Failure::InvalidToken)?;
    let source = source()?;
    let found = api_key::verify(&source, presented, |columns, live| {
        let (key, owner) = live?;
        let (limits, roles) = (Limits::of(key, &source), Roles::of_datum(owner, &source));
        let covers = |path: &[Resource]| limits.allow(&permission, path) && roles.cover(&permission, path);
        let path = path_until(resource, &source, |at| roles.are_on(at), covers);
        let uncovered: Vec<String> = [
            (limits.in_scope(&permission), format!("The scopes of the key do not cover {shown}.")),
            (limits.allow(&permission, &path), format!("The allow-list of the key does not cover {place}.")),
            (
                roles.cover(&permission, &path),
                format!("The roles of the key's owner do not cover {shown} on {place}."),
            ),
        ]
        .into_iter()
        .filter(|(covered, _)| !covered)
        .map(|(_, sentence)| sentence)
        .collect();
        Some(if uncovered.is_empty() { Ok(Record::new(fcinfo, &columns)) } else { Err(uncovered) })
    });
    match found.ok_or(Failure::InvalidToken)? {
        Ok(record) => Ok(record),
        Err(uncovered) => Err(Failure::NotPermitted { permission: shown, uncovered }.into()),
    }
}

fn require_resource(text: &[u8], types: &Types) -> Result<Resource, Fault> {
    let resource = str::from_utf8(text).ok().and_then(Resource::parse).ok_or_else(|| {
        Fault::new("resource", "It is not of the form type:id.", "Give one resource, such as project:p1.")
    })?;
    types.require("resource", resource.kind.as_bytes()).map(|()| resource)
}
