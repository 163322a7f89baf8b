//! Dates in figures, written out: what "05/30/1952" and "May 30, 1952" share is the day and the year,
//! but not one word or n-gram of the month.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The text with its first date such as `05/30/1952` as `May 30, 1952`; twice where both orders of day
/// and month are dates. Nothing for a text without one.
pub(super) fn written_out(text: &str) -> Vec<String> {
    let mut dates =
        text.split_whitespace().map(|it| it.trim_matches(|c: char| !c.is_ascii_digit()));
    let Some((date, [first, second], year)) = dates.find_map(parse) else {
        return Vec::new();
    };
    let mut orders = vec![(first, second), (second, first)];
    orders.dedup();
    let written = orders.into_iter().filter_map(|(month, day)| {
        let name = MONTHS.get(month.checked_sub(1)?)?;
        let is_day = (1..=31).contains(&day);
        is_day.then(|| text.replace(date, &format!("{name} {day}, {year}")))
    });
    written.collect()
}

/// A date with its two numbers and its year.
fn parse(date: &str) -> Option<(&str, [usize; 2], &str)> {
    let mut parts = date.split('/');
    let (first, second, year) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = parts.next().is_none() && year.len() == 4 && year.parse::<u16>().is_ok();
    fits.then_some((date, [first.parse().ok()?, second.parse().ok()?], year))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_both_orders_where_both_are_dates() {
        let written = |text: &str| written_out(text).join(" | ");
        assert_eq!(written("Born on 05/30/1952?"), "Born on May 30, 1952?");
        assert_eq!(written("(30/5/1952), in Tokyo"), "(May 30, 1952), in Tokyo");
        assert_eq!(written("on 08/09/1956."), "on August 9, 1956. | on September 8, 1956.");
        assert_eq!(written("on 7/7/1977"), "on July 7, 1977");
        for none in ["in 1952", "1/2 of it", "13/32/1952", "05/30/52", "1/2/3/1952", "", "0/1/1952"]
        {
            assert_eq!(written(none), "", "{none}");
        }
    }
}
