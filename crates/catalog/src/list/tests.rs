#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

static STATES: &[&str] = &["queued", "running"];
static THINGS: Resource = Resource {
    name: "thing",
    from: "things",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("state", Kind::Enum(STATES), "How it is."),
        Field::new("at", Kind::Time, "When.").nullable(),
        Field::new("managed", Kind::Bool, "Whether."),
        Field::new("bits", Kind::Flags(&[("MOUNT", 1), ("UNMOUNT", 2)]), "What."),
        Field::new("secret", Kind::Text, "Not sorted by.").unsorted(),
    ],
    order: ("at", true),
    organisation: None,
    search: None,
    counted: None,
};

fn parse(query: &[(&str, &str)]) -> Result<List, ListError> {
    List::parse(&THINGS, query.iter().copied())
}

fn refused(name: &str, value: &str) -> String {
    parse(&[(name, value)]).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_told_with_what_would_be_right() {
    assert_eq!(
        refused("filter", "colour:==red"),
        "a thing has no field `colour` to filter by; there are: id, name, state, at, managed, bits, secret"
    );
    assert!(
        refused("sort", "secret:asc").contains("there are: id, name, state, at, managed, bits")
    );
    assert!(refused("filter", "name:>=b").ends_with("that field has: ==, !=, =|"));
    assert!(refused("filter", "name").contains("<field>:<operator><value>"));
    assert!(refused("filter", "state:==done").ends_with("one of queued, running"));
    assert!(refused("filter", "id:==seven").ends_with("a whole number"));
    assert!(refused("filter", "managed:==maybe").ends_with("true or false"));
    assert!(refused("filter", "at:>=yesterday").contains("2026-01-31T12:00:00Z"));
    assert!(refused("filter", "bits:=b0").contains("at least one bit"));
    assert!(refused("sort", "id:down").contains("asc or desc"));
    assert!(refused("limit", "-1").contains("not negative"));
    assert!(refused("offset", "99999999999999999999").contains("not negative"));
    assert!(refused("keyword", "x").contains("can't be looked for"));
    assert!(refused("filter", &format!("name:=={}", "x".repeat(5000))).contains("longer than"));
}

#[test]
fn only_what_can_be_combined_is() {
    let filters = |texts: &[&str]| {
        let pairs: Vec<_> = texts.iter().map(|text| ("filter", *text)).collect();
        parse(&pairs).map(|list| list.filters.len())
    };
    assert_eq!(filters(&["name:==a", "NAME:==b", "id:==1"]), Ok(3));
    assert_eq!(filters(&["id:>=1", "id:<=5"]), Ok(2));
    assert_eq!(filters(&["name:!=a", "name:!=b"]), Ok(2));
    for wrong in [
        ["id:>=1", "id:>=2"],
        ["id:==1", "id:>=2"],
        ["name:=|a", "name:=|b"],
        ["name:==a", "name:!=b"],
    ] {
        assert!(matches!(filters(&wrong), Err(ListError::Repeated { .. })), "{wrong:?}");
    }
}

#[test]
fn values_are_read_by_the_kind_of_their_field() {
    let value = |text: &str| parse(&[("filter", text)]).unwrap().filters[0].value.clone();
    assert_eq!(value("managed:==$true"), Operand::Int(1));
    assert_eq!(value("managed:==False"), Operand::Int(0));
    assert_eq!(value("bits:=bUnmount"), Operand::Int(2));
    assert_eq!(value("at:>=1970-01-01T00:00:01Z"), Operand::Int(1_000_000));
    assert_eq!(value("at:>= 5"), Operand::Int(5));
    assert_eq!(value("name:=| a%b"), Operand::Text(" a%b".into()));
    assert_eq!(parse(&[("limit", "1000000")]).unwrap().limit, MAX_LIMIT);
}
