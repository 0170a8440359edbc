//! JSON whose objects are objects: serde also takes an array for a struct, field by field, which
//! no document of ours says, so that `[]` would be a request with nothing but defaults.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// Reads one value from JSON.
///
/// # Errors
/// When the text isn't JSON, isn't a `T`, or has an array where a `T` has a struct. What serde
/// keeps aside before it knows the kind (tagged and untagged enums, flattened fields) is read as
/// serde does.
pub(super) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = T::deserialize(Strict(&mut json))?;
    json.end()?;
    Ok(value)
}

/// A deserializer, a visitor, or what these give each other, that lets no array be a struct.
struct Strict<T>(T);

/// The visitor of a struct.
struct Object<V>(V);

/// Passes methods on with the visitor wrapped.
macro_rules! passes {
    ($($method:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(
            self,
            $($argument: $kind,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Strict(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    passes! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Object(visitor))
    }
}

/// Passes values on as they are.
macro_rules! gives {
    ($($method:ident: $kind:ty;)*) => {
        $(fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    gives! {
        visit_bool: bool;
        visit_i64: i64;
        visit_i128: i128;
        visit_u128: u128;
        visit_f64: f64;
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    /// Numbers of ours have 64 bits and a sign, as the document says.
    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        match i64::try_from(value) {
            Ok(_) => self.0.visit_u64(value),
            Err(_) => Err(E::custom(format!("a number is {} at most", i64::MAX))),
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(fields))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(variant))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(fields))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(value))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, variant) = self.0.variant_seed(seed)?;
        Ok((name, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Strict(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Object(visitor))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        name: Option<String>,
        pair: (u8, i64),
    }

    #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        None,
        One(Inner),
        Two(u8, bool),
        Many { inner: Inner },
    }

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Outer {
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        kinds: Vec<Kind>,
        #[serde(default)]
        named: BTreeMap<String, Inner>,
        #[serde(default)]
        any: serde_json::Value,
    }

    fn inner() -> impl Strategy<Value = Inner> {
        (proptest::option::of(".{0,5}"), any::<(u8, i64)>())
            .prop_map(|(name, pair)| Inner { name, pair })
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::None),
            inner().prop_map(Kind::One),
            any::<(u8, bool)>().prop_map(|(a, b)| Kind::Two(a, b)),
            inner().prop_map(|inner| Kind::Many { inner }),
        ]
    }

    fn outer() -> impl Strategy<Value = Outer> {
        let named = proptest::collection::btree_map("[a-z]{1,3}", inner(), 0..3);
        let any = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(|number| serde_json::json!([{ "a": [number, 0.5] }])),
        ];
        (inner(), proptest::collection::vec(kind(), 0..4), named, any)
            .prop_map(|(inner, kinds, named, any)| Outer { inner, kinds, named, any })
    }

    proptest! {
        #[test]
        fn what_is_well_formed_is_read_as_serde_does(value in outer()) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(from_slice::<Outer>(&text).unwrap(), value);
        }
    }

    #[test]
    fn no_array_is_a_struct_however_deep() {
        for text in [
            "[]",
            r#"[{}, []]"#,
            r#"{"inner": []}"#,
            r#"{"kinds": [{"one": []}]}"#,
            r#"{"kinds": [{"many": [{}]}]}"#,
            r#"{"kinds": [{"many": {"inner": ["a", [1, 2]]}}]}"#,
            r#"{"named": {"a": []}}"#,
        ] {
            serde_json::from_str::<Outer>(text).unwrap();
            let error = from_slice::<Outer>(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("expected an object"), "{text}: {error}");
        }
        let error = from_slice::<Outer>(b"{} {}").unwrap_err();
        assert!(error.to_string().contains("trailing characters"), "{error}");
    }

    #[test]
    fn no_number_is_beyond_what_the_document_has() {
        #[derive(Debug, Default, Deserialize)]
        struct Counts {
            #[serde(default)]
            one: u64,
            #[serde(flatten)]
            more: More,
        }
        #[derive(Debug, Default, Deserialize)]
        struct More {
            #[serde(default)]
            two: u64,
        }

        let most = i64::MAX.unsigned_abs();
        for name in ["one", "two"] {
            let text = |number: u64| format!(r#"{{"{name}": {number}}}"#);
            let counts = from_slice::<Counts>(text(most).as_bytes()).unwrap();
            assert_eq!(counts.one + counts.more.two, most);
            serde_json::from_str::<Counts>(&text(most + 1)).unwrap();
            let error = from_slice::<Counts>(text(most + 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("a number is 9223372036854775807"), "{error}");
        }
    }
}
