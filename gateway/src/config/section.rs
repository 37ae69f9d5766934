//! What a section of the configuration is made of.
//!
//! Owns the [`section!`] macro: one declaration gives the struct, its defaults, its serde form, and the list of its
//! keys with their documentation, so that the unknown-key check and the default file cannot drift from the structs.
//! It knows no particular key.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// One key of the configuration, as the reference shows it.
#[derive(Debug)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// A value to show, as TOML, for a key that has no default.
    pub example: Option<&'static str>,
    /// What stands under it.
    pub kind: Kind,
    /// The JSON Schema of a value.
    pub schema: Option<fn() -> Schema>,
}

/// What stands under a key.
#[derive(Debug)]
pub enum Kind {
    /// A scalar or an array of scalars.
    Value,
    /// A table with these keys.
    Table(&'static [Key]),
    /// An array of tables with these keys.
    List(&'static [Key]),
    /// A table of tables with these keys, each under a name of the user's choice.
    Map(&'static [Key]),
}

/// Declares a section: a struct with a default for each key.
///
/// `field as "name"` gives a key a name in the file that differs from the field's. `tables`, `lists` and `maps` hold
/// sections inside the section.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                $field:ident $(as $wire:literal)? : $type:ty = $default:expr $(; example $example:literal)?,
            )*
        }
        $(tables { $( $table:ident $(as $table_wire:literal)? : $table_type:ty, )* })?
        $(lists { $( $list:ident $(as $list_wire:literal)? : $list_type:ty = $list_default:expr, )* })?
        $(maps { $( $map:ident $(as $map_wire:literal)? : $map_type:ty, )* })?
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $(#[serde(rename = $wire)])?
                pub $field: $type,
            )*
            $($(
                #[doc = concat!("The section `", stringify!($table), "`.")]
                $(#[serde(rename = $table_wire)])?
                pub $table: $table_type,
            )*)?
            $($(
                #[doc = concat!("The list of `", stringify!($list), "`.")]
                $(#[serde(rename = $list_wire)])?
                pub $list: Vec<$list_type>,
            )*)?
            $($(
                #[doc = concat!("The tables of `", stringify!($map), "`, by name.")]
                $(#[serde(rename = $map_wire)])?
                pub $map: std::collections::BTreeMap<String, $map_type>,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $($( $table: <$table_type>::default(), )*)?
                    $($( $list: $list_default, )*)?
                    $($( $map: std::collections::BTreeMap::new(), )*)?
                }
            }
        }

        impl $name {
            /// The documentation of the section, line by line.
            pub const DOC: &'static [&'static str] = &[$($section_doc),*];

            /// The keys of the section.
            pub const KEYS: &'static [$crate::config::Key] = &[
                $( $crate::config::Key {
                    name: $crate::config::section::name!($field $($wire)?),
                    doc: &[$($doc),*],
                    example: $crate::config::section::example!($($example)?),
                    kind: $crate::config::Kind::Value,
                    schema: Some($crate::config::section::schema!([$($($serde)*)?] $type)),
                }, )*
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($table $($table_wire)?),
                    doc: <$table_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::Table(<$table_type>::KEYS),
                    schema: None,
                }, )*)?
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($list $($list_wire)?),
                    doc: <$list_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::List(<$list_type>::KEYS),
                    schema: None,
                }, )*)?
                $($( $crate::config::Key {
                    name: $crate::config::section::name!($map $($map_wire)?),
                    doc: <$map_type>::DOC,
                    example: None,
                    kind: $crate::config::Kind::Map(<$map_type>::KEYS),
                    schema: None,
                }, )*)?
            ];
        }
    };
}

macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $wire:literal) => {
        $wire
    };
}

macro_rules! example {
    () => {
        None
    };
    ($example:literal) => {
        Some($example)
    };
}

/// The schema of a value: what has units goes by them, everything else by its type.
macro_rules! schema {
    ([with = "units::duration"] $type:ty) => {
        $crate::config::section::duration_schema
    };
    ([with = "units::bytes"] $type:ty) => {
        $crate::config::section::bytes_schema
    };
    ([deserialize_with = "units::one_or_many"] $type:ty) => {
        $crate::config::section::one_or_many_schema
    };
    ([$($other:tt)*] $type:ty) => {
        $crate::config::section::schema_of::<$type>
    };
}

pub(crate) use {example, name, schema, section};

pub(super) fn duration_schema() -> Schema {
    json_schema!({
        "type": ["string", "integer"],
        "minimum": 0,
        "pattern": r"^\s*\d+(\s*[a-zA-Z]+(\s*\d+\s*[a-zA-Z]+)*)?\s*$",
        "examples": ["25s", "300ms", "1m 30s"],
    })
}

pub(super) fn bytes_schema() -> Schema {
    json_schema!({
        "type": ["string", "integer"],
        "minimum": 0,
        "pattern": r"^\s*\d+\s*([kKmMgG]?[iI]?[bB])?\s*$",
        "examples": ["16MiB", "64kB"],
    })
}

pub(super) fn one_or_many_schema() -> Schema {
    json_schema!({
        "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
    })
}

/// The schema of a type, in one piece. A key that may be left out is left out, and never null.
pub(super) fn schema_of<T: JsonSchema>() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = T::json_schema(&mut SchemaGenerator::new(settings));
    if let Some(types) = schema.get_mut("type").and_then(serde_json::Value::as_array_mut) {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(serde_json::Value::as_array_mut) {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
    }
    schema
}
