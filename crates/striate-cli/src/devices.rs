//! Devices that a command line names.
use crate::error::CliError;
use tch::{Cuda, Device};

/// The devices of these names: `cpu`, `cuda` (the first graphics card) or `cuda:N`.
pub(crate) fn parse(names: &[String]) -> Result<Vec<Device>, CliError> {
    let refuse = |name: &str, reason: String| CliError::Usage(format!("--devices {name}: {reason}"));
    let parse = |name: &String| {
        let number = match name.as_str() {
            "cpu" => return Ok(Device::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        let number: usize = number.ok_or_else(|| refuse(name, "there is no such device: name cpu, cuda:0, ...".to_owned()))?;
        match usize::try_from(Cuda::device_count()).unwrap_or(0) {
            count if number < count => Ok(Device::Cuda(number)),
            0 => Err(refuse(name, "no graphics card can be used with this libtorch: name cpu".to_owned())),
            count => Err(refuse(name, format!("the last graphics card is cuda:{}", count - 1))),
        }
    };
    names.iter().map(parse).collect()
}
