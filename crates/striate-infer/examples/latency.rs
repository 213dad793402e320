//! Milliseconds of a plan's forward pass: `latency MODEL [BATCH] [SIZE] [fp32|bf16|int8|network]`, with two threads.
//!
//! Prints the median and the quartiles of runs over three seconds. `network` is the network itself, without a plan; a further
//! argument `steps` lists the plan, with the median time of each step. For comparisons, and with others, see `cargo xtask bench`.
use std::error::Error;
use std::time::{Duration, Instant};
use striate_graph::{InitOptions, Network};
use striate_infer::{Plan, PlanOptions, Precision};
use striate_layers::Mode;
use striate_models::find;
use tch::{Device, Kind, Tensor};

const THREADS: usize = 2;
const SECONDS: u64 = 3;
/// Runs whose median is a step's time.
const PROFILES: usize = 31;
/// What a plan may differ from its network, relative to the largest logit.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Bfloat16 => 0.05,
        Precision::Int8 => 0.2,
        _ => 1e-4,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |index: usize, default: &'static str| args.get(index).map_or(default, String::as_str);
    let (batch, size): (i64, i64) = (arg(1, "16").parse()?, arg(2, "224").parse()?);
    let threads = std::env::var("STRIATE_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(THREADS);
    striate_torch::set_num_threads(threads);
    let _no_grad = striate_torch::no_grad();

    let network = Network::new(find(arg(0, "resnet18"))?.model(&[])?.graph()?, &InitOptions::default())?;
    let images = Tensor::f_randn([batch, 3, size, size], (Kind::Float, Device::Cpu))?;
    let start = Instant::now();
    let precision = match arg(3, "fp32") {
        "network" => Precision::Float32,
        name => name.parse()?,
    };
    let plan = match precision {
        Precision::Int8 => Plan::calibrated(&network, &[images.shallow_clone()])?,
        precision => Plan::new(&network, &PlanOptions { precision, ..PlanOptions::default() })?,
    };
    let planning = start.elapsed();
    let run: Box<dyn Fn() -> Result<Tensor, Box<dyn Error>>> = match arg(3, "fp32") {
        "network" => Box::new(|| Ok(network.forward(&images, Mode::Eval)?.logits().shallow_clone())),
        _ => Box::new(|| Ok(plan.forward(&images)?.logits().shallow_clone())),
    };
    let timed = || -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        let _logits = run()?;
        Ok(1e3 * start.elapsed().as_secs_f64())
    };

    let expected = network.forward(&images, Mode::Eval)?.logits().shallow_clone();
    let distance = ((run()? - &expected).abs().max() / expected.abs().max()).double_value(&[]);
    if distance > tolerance(precision) {
        return Err(format!("the plan's logits differ by {distance:.1e}").into());
    }
    if arg(4, "") == "steps" {
        let profiles = (0..PROFILES).map(|_| plan.profile(&images)).collect::<Result<Vec<_>, _>>()?;
        for (step, (text, _)) in profiles[0].iter().enumerate() {
            let mut times: Vec<f64> = profiles.iter().map(|profile| 1e3 * profile[step].1).collect();
            times.sort_by(f64::total_cmp);
            println!("{:7.3} ms  {text}", times[PROFILES / 2]);
        }
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || start.elapsed() < Duration::from_secs(SECONDS) {
        times.push(timed()?);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[share * (times.len() - 1) / 4];
    println!(
        "{} batch {batch} size {size} {}: {:.2} ms ({:.2} to {:.2}, {} runs), planned in {:.2} s",
        arg(0, "resnet18"),
        arg(3, "fp32"),
        at(2),
        at(1),
        at(3),
        times.len(),
        planning.as_secs_f64()
    );
    Ok(())
}
