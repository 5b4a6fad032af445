//! The forms of texts, as the JSON Schema has them. They accept whatever the reader accepts.

use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::marker::PhantomData;

/// The schema of manifests, as it is published.
pub fn publish() -> String {
    let mut schema = schemars::schema_for!(super::Manifest);
    tidy(&mut schema);
    let mut text = serde_json::to_string_pretty(&schema).unwrap();
    text.push('\n');
    text
}

/// A key that may be absent but not null has no default, and a description is one line.
fn tidy(schema: &mut Schema) {
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    transform_subschemas(&mut tidy, schema);
}

macro_rules! forms {
    ($($name:ident: $schema:tt)+) => {$(
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

// Bytes are counted by the reader, and there are at least as many as characters.
forms! {
    Manager: {"type": "string", "pattern": "^[!-~]{1,63}$"}
    Username: {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9]+([-_.][a-z0-9]+)*$"}
    Name: {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
    ResourceType: {"type": "string", "pattern": "^[a-z][a-z0-9_.-]{0,62}$"}
    ScopeName: {"type": "string", "pattern": "^[a-z][a-z0-9_.-]{0,62}(:[a-z][a-z0-9_.-]{0,62})?$"}
    ResourceId: {
        "type": "string",
        "maxLength": 255,
        "pattern": "^[^\\u0000-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000*]+$",
    }
    Email: {
        "type": "string",
        "maxLength": 254,
        "pattern": "^([^@\\u0000-\\u0020\\u007f]+@[^@\\u0000-\\u0020\\u007f]+)?$",
    }
    Words: {"type": "string", "maxLength": 128, "pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
    Identifier: {"type": "string", "maxLength": 63, "pattern": "^[^\\u0000]+$"}
    Level: {"type": "integer", "minimum": 0, "maximum": 9}
    Duration: {"type": "string", "minLength": 1}
}

/// The form, or the empty text for none.
pub struct OrEmpty<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for OrEmpty<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrEmpty", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        if let Some(Value::String(pattern)) = schema.get("pattern") {
            let inner = pattern.trim_start_matches('^').trim_end_matches('$');
            schema.insert("pattern".into(), json!(format!("^({inner})?$")));
        }
        schema
    }
}

/// Where a role is held. Absent or null: everywhere.
#[derive(JsonSchema)]
#[allow(dead_code)] // only its schema is used
pub struct Place {
    /// The type of the resource, with resource_id. Both absent or null: everywhere.
    #[schemars(with = "Option<ResourceType>")]
    resource_type: Option<String>,
    /// The id of the resource, with resource_type. Both absent or null: everywhere.
    #[schemars(with = "Option<ResourceId>")]
    resource_id: Option<String>,
}

/// A default is shown as it would be written.
impl serde::Serialize for crate::duration::Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
