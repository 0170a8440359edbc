//! From a query string's pairs to a [`List`].

use jiff::Timestamp;

use super::{
    DEFAULT_LIMIT, Field, Filter, Kind, List, ListError, MAX_LIMIT, MAX_PARTS, MAX_VALUE, Operand,
    Operator, Resource,
};

impl List {
    /// All items, in the resource's own order.
    pub fn all(resource: &'static Resource) -> Self {
        Self {
            resource,
            filters: Vec::new(),
            sort: Vec::new(),
            keywords: Vec::new(),
            offset: 0,
            limit: DEFAULT_LIMIT,
        }
    }

    /// Reads the decoded pairs of a query string. Pairs with other names are not looked at: the
    /// route knows which it takes.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn parse<'q>(
        resource: &'static Resource,
        pairs: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Result<Self, ListError> {
        let mut list = Self::all(resource);
        for (name, value) in pairs {
            if value.len() > MAX_VALUE {
                let text = format!("`{name}` is longer than {MAX_VALUE} bytes");
                return Err(ListError::Form(text));
            }
            if value.contains('\0') {
                return Err(ListError::Form(format!("`{name}` holds a NUL character")));
            }
            match name {
                "filter" => list.filter(value)?,
                "sort" => list.sort(value)?,
                "keyword" if !value.is_empty() => list.keywords.push(value.to_lowercase()),
                "offset" => list.offset = number(name, value, i64::MAX as u64)?,
                "limit" => list.limit = number(name, value, u64::MAX)?.min(MAX_LIMIT),
                _ => {}
            }
            let parts = [list.filters.len(), list.sort.len(), list.keywords.len()];
            if parts.into_iter().any(|count| count > MAX_PARTS) {
                let text = format!("there are more than {MAX_PARTS} filters, sorts or keywords");
                return Err(ListError::Form(text));
            }
        }
        if !list.keywords.is_empty() && resource.search.is_none() {
            let text = format!("a {} can't be looked for by keyword", resource.name);
            return Err(ListError::Form(text));
        }
        list.check_repeated()?;
        Ok(list)
    }

    /// Which resource it lists.
    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    fn place(
        &self,
        name: &str,
        what: &'static str,
        fits: fn(&Field) -> bool,
    ) -> Result<usize, ListError> {
        let fields = self.resource.fields;
        let place = fields.iter().position(|f| f.name.eq_ignore_ascii_case(name) && fits(f));
        place.ok_or_else(|| ListError::Field {
            resource: self.resource.name,
            field: name.to_owned(),
            what,
            valid: joined(fields.iter().filter(|f| fits(f)).map(|f| f.name)),
        })
    }

    fn filter(&mut self, text: &str) -> Result<(), ListError> {
        let Some((name, rest)) = text.split_once(':') else {
            let text = format!("the filter `{text}` is not <field>:<operator><value>");
            return Err(ListError::Form(text));
        };
        let place = self.place(name.trim(), "filter", |field| field.filterable)?;
        let field = &self.resource.fields[place];
        let valid = field.kind.operators();
        let operator = Operator::ALL
            .into_iter()
            .find(|operator| rest.starts_with(operator.text()) && valid.contains(operator));
        let operator = operator.ok_or_else(|| ListError::Operator {
            filter: text.to_owned(),
            field: field.name,
            valid: joined(valid.iter().map(|operator| operator.text())),
        })?;
        let value = operand(field, operator, &rest[operator.text().len()..])?;
        self.filters.push(Filter { field: place, operator, value });
        Ok(())
    }

    fn sort(&mut self, text: &str) -> Result<(), ListError> {
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, direction) = item.split_once(':').unwrap_or((item, "asc"));
            let down = match direction.to_ascii_lowercase().as_str() {
                "asc" => false,
                "desc" => true,
                _ => {
                    let text = format!("`{item}`: a direction is asc or desc");
                    return Err(ListError::Form(text));
                }
            };
            let place = self.place(name.trim(), "sort", |field| field.sortable)?;
            self.sort.push((place, down));
        }
        Ok(())
    }

    /// Equal may be repeated (a union), so may not equal; at least and at most may be there once
    /// each; anything else stands alone.
    fn check_repeated(&self) -> Result<(), ListError> {
        for (i, filter) in self.filters.iter().enumerate() {
            let others = self.filters[..i].iter().filter(|other| other.field == filter.field);
            for other in others {
                use Operator::{AtLeast, AtMost, Equal, NotEqual};
                let fits = matches!(
                    (other.operator, filter.operator),
                    (Equal, Equal) | (NotEqual, NotEqual) | (AtLeast, AtMost) | (AtMost, AtLeast)
                );
                if !fits {
                    return Err(ListError::Repeated {
                        field: self.resource.fields[filter.field].name,
                        why: "== and != may be repeated, and >= go with <=; nothing else",
                    });
                }
            }
        }
        Ok(())
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn number(name: &str, value: &str, max: u64) -> Result<u64, ListError> {
    let number = value.trim().parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| ListError::Form(format!("`{name}` is a number that is not negative")))
}

/// Microseconds since 1970, from RFC 3339 or a number.
fn time(value: &str) -> Option<i64> {
    let number = value.parse().ok();
    number.or_else(|| value.parse::<Timestamp>().ok().map(Timestamp::as_microsecond))
}

fn operand(field: &'static Field, operator: Operator, value: &str) -> Result<Operand, ListError> {
    let wrong = |valid: String| {
        let value = value.to_owned();
        Err(ListError::Value { value, field: field.name, valid })
    };
    let trimmed = value.trim();
    let number = trimmed.parse::<i64>();
    match field.kind {
        Kind::Text => Ok(Operand::Text(value.to_owned())),
        Kind::Integer => match number {
            Ok(number) => Ok(Operand::Int(number)),
            Err(_) => wrong("a whole number".into()),
        },
        Kind::Time => match time(trimmed) {
            Some(time) => Ok(Operand::Int(time)),
            None => wrong("a time as in 2026-01-31T12:00:00Z, or microseconds since 1970".into()),
        },
        Kind::Bool => match trimmed.trim_start_matches('$').to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Operand::Int(1)),
            "false" | "0" => Ok(Operand::Int(0)),
            _ => wrong("true or false".into()),
        },
        Kind::Enum(words) => match words.contains(&trimmed) {
            true => Ok(Operand::Text(trimmed.to_owned())),
            false => wrong(format!("one of {}", joined(words.iter().copied()))),
        },
        Kind::Flags(bits) => {
            let named = bits.iter().find(|(name, _)| name.eq_ignore_ascii_case(trimmed));
            match named.map(|(_, bit)| *bit).or(number.ok()) {
                // No bits at all are never had.
                Some(0) if operator == Operator::HasBits => wrong("at least one bit".into()),
                Some(bits) => Ok(Operand::Int(bits)),
                None => {
                    wrong(format!("a number, or one of {}", joined(bits.iter().map(|(n, _)| *n))))
                }
            }
        }
    }
}
