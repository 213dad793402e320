use std::time::Instant;
use striate_torch::{MemoryFormat, pointwise, to_memory_format};
use tch::{Device, Kind, Tensor};
fn best(mut f: impl FnMut() -> f64) -> f64 {
    (0..14).map(|_| f()).fold(9e9, f64::min) * 1e3
}
fn main() {
    let t: i32 = std::env::args().nth(1).map_or(2, |t| t.parse().unwrap());
    striate_torch::set_num_threads(t as _);
    striate_torch::keep_memory_warm();
    let shapes = [
        (64, 64, 56, 1),
        (64, 256, 56, 4),
        (256, 64, 56, 2),
        (256, 128, 56, 1),
        (128, 512, 28, 4),
        (512, 128, 28, 3),
        (512, 256, 28, 1),
        (256, 1024, 14, 6),
        (1024, 256, 14, 5),
        (1024, 512, 14, 1),
        (512, 2048, 7, 3),
        (2048, 512, 7, 2),
    ];
    let mut sums = [[0.0; 3]; 2];
    for (i, o, s, n) in shapes {
        let r = |size: &[i64]| {
            to_memory_format(&Tensor::randn(size, (Kind::Float, Device::Cpu)), MemoryFormat::ChannelsLast).unwrap()
        };
        let (x, w, g) = (r(&[8, i, s, s]), r(&[o, i, 1, 1]), r(&[8, o, s, s]));
        print!("{i} {o} {s}:");
        let gf = 2e-6 * (8 * i * o * s * s) as f64;
        for ours in [false, true] {
            let conv = |x: &Tensor, w: &Tensor| {
                if ours { pointwise::conv(x, w, None).unwrap() } else { x.conv2d(w, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1) }
            };
            let f = best(|| {
                let _n = striate_torch::no_grad();
                let t = Instant::now();
                conv(&x, &w);
                t.elapsed().as_secs_f64()
            });
            let back = |x: &Tensor, w: &Tensor, of: &Tensor| {
                best(|| {
                    let y = conv(x, w);
                    let loss =
                        Tensor::f_dot(&y.permute([0, 2, 3, 1]).reshape([-1]), &g.permute([0, 2, 3, 1]).reshape([-1])).unwrap();
                    let t = Instant::now();
                    let d = Tensor::run_backward(&[loss], &[of], false, false);
                    drop(d);
                    t.elapsed().as_secs_f64()
                })
            };
            let xl = x.detach().set_requires_grad(true);
            let wl = w.detach().set_requires_grad(true);
            let b = best(|| {
                let t = Instant::now();
                let _m = &g * 1.5;
                t.elapsed().as_secs_f64()
            });
            let (dx, dw) = (back(&xl, &w, &xl) - b, back(&x, &wl, &wl) - b);
            print!("  {f:.2} {:.0}, {dx:.2} {:.0}, {dw:.2} {:.0} |", gf / f, gf / dx, gf / dw);
            for (k, v) in [f, dx, dw].into_iter().enumerate() {
                sums[usize::from(ours)][k] += v * n as f64;
            }
        }
        println!();
    }
    println!("{sums:?}");
}
