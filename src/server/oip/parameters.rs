//! The parameters of requests and tensors that mean something here. Others are ignored: clients add
//! some that ask for nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::invalid;
use super::proto::InferParameter;
use super::proto::infer_parameter::ParameterChoice;
use crate::engine::Lane;
use crate::server::status::CallError;

/// By name.
pub(super) type Parameters = BTreeMap<String, InferParameter>;

/// The lane of a request, by Triton's `priority`: 1 is the highest, and 0 that of the model.
///
/// # Errors
/// It is not a whole number.
pub(super) fn lane(parameters: &Parameters) -> Result<Option<Lane>, CallError> {
    Ok(match whole_number(parameters, "priority", "parameters")?.unwrap_or_default() {
        0 => None,
        1 => Some(Lane::Interactive),
        _ => Some(Lane::Bulk),
    })
}

/// How long the request may take, by Triton's `timeout` in microseconds; 0 is no bound.
///
/// # Errors
/// It is not a whole number.
pub(super) fn timeout(parameters: &Parameters) -> Result<Option<Duration>, CallError> {
    let micros = whole_number(parameters, "timeout", "parameters")?;
    Ok(micros.filter(|&micros| micros > 0).map(Duration::from_micros))
}

/// How many of the best labels a requested output asks for, by Triton's `classification`. `tensor`
/// is where it stands.
///
/// # Errors
/// It is not a whole number.
pub(super) fn class_count(parameters: &Parameters, tensor: &str) -> Result<Option<u64>, CallError> {
    whole_number(parameters, "classification", &format!("{tensor}.parameters"))
}

/// Refuses a tensor that is, or should be put, in memory that the client shares.
///
/// # Errors
/// It is.
pub(super) fn refuse_shared_memory(parameters: &Parameters, tensor: &str) -> Result<(), CallError> {
    let name = "shared_memory_region";
    if !parameters.contains_key(name) {
        return Ok(());
    }
    let field = format!("{tensor}.parameters.{name}");
    Err(invalid(field, "set", "absent: memory is not shared with this server"))
}

fn whole_number(
    parameters: &Parameters,
    name: &str,
    place: &str,
) -> Result<Option<u64>, CallError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let value = match &parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(value)) => return Ok(Some(*value)),
        Some(ParameterChoice::Int64Param(value)) => match u64::try_from(*value) {
            Ok(value) => return Ok(Some(value)),
            Err(_) => value.to_string(),
        },
        Some(ParameterChoice::BoolParam(value)) => value.to_string(),
        Some(ParameterChoice::DoubleParam(value)) => format!("{value:?}"),
        Some(ParameterChoice::StringParam(value)) => format!("{value:?}"),
        None => "without a value".to_owned(),
    };
    Err(invalid(format!("{place}.{name}"), value, "a whole number from 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, choice: Option<ParameterChoice>) -> Parameters {
        [(name.to_owned(), InferParameter { parameter_choice: choice })].into()
    }

    #[test]
    fn a_priority_below_the_highest_is_bulk() {
        use ParameterChoice::{Int64Param, Uint64Param};
        let lane_of = |choice| lane(&with("priority", Some(choice)));
        assert_eq!(lane(&Parameters::new()), Ok(None));
        assert_eq!(lane_of(Uint64Param(0)), Ok(None));
        assert_eq!(lane_of(Uint64Param(1)), Ok(Some(Lane::Interactive)));
        assert_eq!(lane_of(Int64Param(2)), Ok(Some(Lane::Bulk)));
        assert_eq!(lane_of(Uint64Param(u64::MAX)), Ok(Some(Lane::Bulk)));
    }

    #[test]
    fn a_timeout_is_in_microseconds() {
        use ParameterChoice::Int64Param;
        let timeout_of = |value| timeout(&with("timeout", Some(Int64Param(value))));
        assert_eq!(timeout(&Parameters::new()), Ok(None));
        assert_eq!(timeout_of(0), Ok(None));
        assert_eq!(timeout_of(2_500), Ok(Some(Duration::from_micros(2_500))));
    }

    #[test]
    fn what_is_no_whole_number_is_refused_by_name() {
        use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam};
        let bad = [
            (Some(Int64Param(-1)), "-1"),
            (Some(DoubleParam(1.5)), "1.5"),
            (Some(BoolParam(true)), "true"),
            (Some(StringParam("1".to_owned())), "\"1\""),
            (None, "without a value"),
        ];
        for (choice, value) in bad {
            let expected = invalid("parameters.timeout", value, "a whole number from 0");
            assert_eq!(timeout(&with("timeout", choice)), Err(expected));
        }
    }

    #[test]
    fn what_asks_for_nothing_here_is_ignored() {
        let sequence = with("sequence_id", Some(ParameterChoice::Int64Param(7)));
        assert_eq!((lane(&sequence), timeout(&sequence)), (Ok(None), Ok(None)));
        assert_eq!(refuse_shared_memory(&sequence, "inputs[0]"), Ok(()));
    }
}
