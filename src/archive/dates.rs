//! The month of a document, from whatever its archive writes for a date.

use chrono::{DateTime, Datelike, NaiveDate};

/// Years that a document may be of; others are mistakes, and must not fill the memory
/// with months.
const YEARS: std::ops::RangeInclusive<i32> = 1800..=2200;
/// From here on a number counts milliseconds and not seconds: the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// The month of `date` as `2015-07`. Understood are ISO 8601 and its like
/// (`2015-07-31T…`, `2015/7/31`, `2015-07`, `20150731`), the day first
/// (`31/7/2015`), RFC 2822 (`Fri, 31 Jul 2015 10:00:00 +0300`) and Unix time in
/// seconds or milliseconds, in Western or Arabic digits.
pub(super) fn month(date: &str) -> Option<String> {
    let date: String = date.trim().chars().map(western).collect();
    let (year, month) = if date.chars().all(|c| c.is_ascii_digit()) && date.len() != 4 {
        of_digits(&date)?
    } else {
        of_numbers(&date).or_else(|| {
            let parsed = DateTime::parse_from_rfc2822(&date).ok()?;
            Some((parsed.year(), parsed.month()))
        })?
    };
    NaiveDate::from_ymd_opt(year, month, 1)?;
    YEARS.contains(&year).then(|| format!("{year:04}-{month:02}"))
}

/// Arabic-Indic and Persian digits as Western ones.
fn western(c: char) -> char {
    let digit = match c {
        '\u{660}'..='\u{669}' => u32::from(c) - 0x660,
        '\u{6f0}'..='\u{6f9}' => u32::from(c) - 0x6f0,
        _ => return c,
    };
    char::from_digit(digit, 10).unwrap_or(c)
}

/// `20150731`, or Unix time.
fn of_digits(digits: &str) -> Option<(i32, u32)> {
    if digits.len() == 8 {
        let date = NaiveDate::parse_from_str(digits, "%Y%m%d").ok()?;
        return Some((date.year(), date.month()));
    }
    let number: i64 = digits.parse().ok()?;
    let time = if number >= MILLISECONDS_FROM {
        DateTime::from_timestamp_millis(number)
    } else {
        DateTime::from_timestamp(number, 0)
    }?;
    Some((time.year(), time.month()))
}

/// Year and month among the numbers that the date begins with.
fn of_numbers(date: &str) -> Option<(i32, u32)> {
    let mut numbers = date.split(|c: char| !c.is_ascii_digit()).map(str::parse::<i32>);
    let first = numbers.next()?.ok()?;
    let second = numbers.next()?.ok()?;
    if first > 31 {
        return Some((first, u32::try_from(second).ok()?));
    }
    let third = numbers.next()?.ok()?;
    Some((third, u32::try_from(second).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_many_archives_are_read() {
        for date in [
            "2015-07-31",
            "2015-07-31T10:00:00Z",
            "2015-07-31 10:00:00.123+03",
            "2015/7/1",
            "2015-07",
            "20150731",
            "31/07/2015",
            "1.7.2015 10:00",
            "٣١/٠٧/٢٠١٥",
            "Fri, 31 Jul 2015 10:00:00 +0300",
            "1438300800",
            "1438300800000",
        ] {
            assert_eq!(month(date).as_deref(), Some("2015-07"), "{date}");
        }
        for date in ["", "yesterday", "0001-01-01", "2015-13-01", "2015", "99999999999999999999"] {
            assert_eq!(month(date), None, "{date}");
        }
    }
}
