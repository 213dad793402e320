//! The published weights of torchvision for these networks, fetched when asked for.
use crate::{ModelError, TrainedOn, find};
use serde::Serialize;
use std::path::{Path, PathBuf};
use striate_datasets::{ImageSize, Interpolation, Normalise, Preprocess};
use striate_fetch::{Download, Lock, cache_dir, user_mirror};
use striate_torch::nearest;

const ADDRESS: &str = "https://download.pytorch.org/models/";
const LICENCE: &str = "BSD-3-Clause (torchvision); trained on ImageNet-1K, whose own terms hold for what is trained on it";

/// Published weights of one network.
///
/// The figures are torchvision's own, of ImageNet-1K's validation images: resized so that their shorter side has `resize`
/// pixels, cropped to `crop` in the middle, and normalised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pretrained {
    /// The name, such as `resnet18-imagenet1k-v1`.
    pub name: &'static str,
    /// The variant that they are for.
    pub model: &'static str,
    /// The file's name at its publisher's; the part before `.pth` ends in the first digits of its SHA-256.
    pub file: &'static str,
    /// The size of the file in millions of bytes.
    pub megabytes: u64,
    /// The percentage of images whose likeliest class is right.
    pub top1: f64,
    /// The percentage of images with the right class among the five likeliest.
    pub top5: f64,
    /// To what the shorter side of an image is brought before the crop.
    pub resize: i64,
    /// How pixels between pixels are made up then: `bilinear`, with antialiasing.
    pub interpolation: &'static str,
    /// The sides of the middle that is cropped then.
    pub crop: i64,
    /// What is subtracted from each channel, scaled to 0..1.
    pub mean: [f64; 3],
    /// What each channel is divided by then.
    pub std: [f64; 3],
    /// Their licence.
    pub licence: &'static str,
}

/// The means and standard deviations of ImageNet's channels.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
/// What the Inception networks take: pixels between -1 and 1. torchvision normalises as for ImageNet, and its networks undo that
/// in their first step (`transform_input`).
const SYMMETRIC: [[f64; 3]; 2] = [[0.5; 3], [0.5; 3]];

/// The weights of a model that were trained on ImageNet-1K: model, version, file, megabytes, accuracies, resize, and where
/// they are not as usual, crop and normalisation.
macro_rules! imagenet {
    ($model:literal, $version:literal, $file:literal, $megabytes:literal, $top1:literal, $top5:literal, $resize:literal) => {
        imagenet!($model, $version, $file, $megabytes, $top1, $top5, $resize, 224, IMAGENET)
    };
    ($model:literal, $version:literal, $file:literal, $megabytes:literal, $top1:literal, $top5:literal, $resize:literal, $crop:literal, $normalise:expr) => {
        Pretrained {
            name: concat!($model, "-imagenet1k-", $version),
            model: $model,
            file: $file,
            megabytes: $megabytes,
            top1: $top1,
            top5: $top5,
            resize: $resize,
            interpolation: "bilinear",
            crop: $crop,
            mean: $normalise[0],
            std: $normalise[1],
            licence: LICENCE,
        }
    };
}

#[rustfmt::skip]
static TABLE: &[Pretrained] = &[
    imagenet!("alexnet", "v1", "alexnet-owt-7be5be79.pth", 244, 56.522, 79.066, 256),
    imagenet!("vgg11", "v1", "vgg11-8a719046.pth", 531, 69.02, 88.628, 256),
    imagenet!("vgg11-bn", "v1", "vgg11_bn-6002323d.pth", 532, 70.37, 89.81, 256),
    imagenet!("vgg13", "v1", "vgg13-19584684.pth", 532, 69.928, 89.246, 256),
    imagenet!("vgg13-bn", "v1", "vgg13_bn-abd245e5.pth", 532, 71.586, 90.374, 256),
    imagenet!("vgg16", "v1", "vgg16-397923af.pth", 553, 71.592, 90.382, 256),
    imagenet!("vgg16-bn", "v1", "vgg16_bn-6c64b313.pth", 554, 73.36, 91.516, 256),
    imagenet!("vgg19", "v1", "vgg19-dcbb9e9d.pth", 575, 72.376, 90.876, 256),
    imagenet!("vgg19-bn", "v1", "vgg19_bn-c79401a0.pth", 575, 74.218, 91.842, 256),
    imagenet!("resnet101", "v1", "resnet101-63fe2227.pth", 179, 77.374, 93.546, 256),
    imagenet!("resnet101", "v2", "resnet101-cd907fc2.pth", 179, 81.886, 95.78, 232),
    imagenet!("resnet152", "v1", "resnet152-394f9c45.pth", 242, 78.312, 94.046, 256),
    imagenet!("resnet152", "v2", "resnet152-f82ba261.pth", 242, 82.284, 96.002, 232),
    imagenet!("resnet18", "v1", "resnet18-f37072fd.pth", 47, 69.758, 89.078, 256),
    imagenet!("resnet34", "v1", "resnet34-b627a593.pth", 87, 73.314, 91.42, 256),
    imagenet!("resnet50", "v1", "resnet50-0676ba61.pth", 103, 76.13, 92.862, 256),
    imagenet!("resnet50", "v2", "resnet50-11ad3fa6.pth", 103, 80.858, 95.434, 232),
    imagenet!("wide-resnet101-2", "v1", "wide_resnet101_2-32ee1156.pth", 255, 78.848, 94.284, 256),
    imagenet!("wide-resnet101-2", "v2", "wide_resnet101_2-d733dc28.pth", 508, 82.51, 96.02, 232),
    imagenet!("wide-resnet50-2", "v1", "wide_resnet50_2-95faca4d.pth", 138, 78.468, 94.086, 256),
    imagenet!("wide-resnet50-2", "v2", "wide_resnet50_2-9ba9bcbe.pth", 276, 81.602, 95.758, 232),
    imagenet!("resnext101-32x8d", "v1", "resnext101_32x8d-8ba56ff5.pth", 356, 79.312, 94.526, 256),
    imagenet!("resnext101-32x8d", "v2", "resnext101_32x8d-110c445d.pth", 356, 82.834, 96.228, 232),
    imagenet!("resnext50-32x4d", "v1", "resnext50_32x4d-7cdf4587.pth", 100, 77.618, 93.698, 256),
    imagenet!("resnext50-32x4d", "v2", "resnext50_32x4d-1a0047aa.pth", 100, 81.198, 95.34, 232),
    imagenet!("googlenet", "v1", "googlenet-1378be20.pth", 52, 69.778, 89.53, 256, 224, SYMMETRIC),
    imagenet!("inception-v3", "v1", "inception_v3_google-0cc3c7bd.pth", 109, 77.294, 93.45, 342, 299, SYMMETRIC),
];

/// All published weights that are known.
pub fn pretrained() -> &'static [Pretrained] {
    TABLE
}

/// The published weights of that name; the error names the nearest one, if one is near.
pub fn find_pretrained(name: &str) -> Result<&'static Pretrained, ModelError> {
    TABLE.iter().find(|weights| weights.name == name).ok_or_else(|| ModelError::UnknownWeights {
        name: name.to_owned(),
        nearest: nearest(name, TABLE.iter().map(|weights| weights.name)),
    })
}

impl Pretrained {
    /// Where they are published.
    pub fn url(&self) -> String {
        format!("{ADDRESS}{}", self.file)
    }

    /// The first digits of the file's SHA-256.
    pub fn sha256_prefix(&self) -> &'static str {
        self.file.rsplit_once('-').map_or("", |(_, rest)| rest.trim_end_matches(".pth"))
    }

    /// The names of the classes, in the order of the logits: ImageNet-1K's, as torchvision gives them.
    pub fn classes(&self) -> impl Iterator<Item = &'static str> {
        striate_datasets::imagenet_classes()
    }

    /// The data that they were trained on: ImageNet-1K.
    pub fn trained_on(&self) -> Option<TrainedOn> {
        striate_datasets::find("imagenet").ok().map(TrainedOn::from)
    }

    /// The input of the network, `[C, H, W]`.
    pub fn input(&self) -> Result<[i64; 3], ModelError> {
        Ok(find(self.model)?.model(&[])?.input())
    }

    /// How images became inputs when the figures were measured.
    ///
    /// # Errors
    ///
    /// An unknown model, which no entry of the list has.
    pub fn preprocess(&self) -> Result<Preprocess, ModelError> {
        let [channels, ..] = self.input()?;
        Ok(Preprocess {
            image: ImageSize::ShorterSide { shorter_side: self.resize },
            input: [channels, self.crop, self.crop],
            normalise: Normalise { mean: self.mean.into(), std: self.std.into() },
            interpolation: Interpolation::Bilinear,
        })
    }

    /// Downloads the file into the cache's folder `weights`, unless it is there, and says where it is: from `weights/` on the
    /// user's own mirror (`STRIATE_MIRROR`), if there is one, and else from its publisher.
    ///
    /// `progress` is told of the bytes that are there, and of all, if the server says how many; return `false` from it to stop. A download that was cut off is
    /// gone on with. Several processes may fetch the same file.
    ///
    /// # Errors
    ///
    /// [`ModelError::Fetch`] if no server gives the file with its checksum, or it can't be written.
    pub fn fetch(&self, progress: &mut dyn FnMut(u64, Option<u64>) -> bool) -> Result<PathBuf, ModelError> {
        let mirror = user_mirror(&format!("weights/{}", self.file));
        self.fetch_from(mirror.into_iter().chain([self.url()]), &cache_dir()?.join("weights"), progress)
    }

    fn fetch_from(
        &self,
        urls: impl IntoIterator<Item = String>,
        folder: &Path,
        progress: &mut dyn FnMut(u64, Option<u64>) -> bool,
    ) -> Result<PathBuf, ModelError> {
        let path = folder.join(self.file);
        let _lock = Lock::acquire(&folder.join(format!(".{}.lock", self.file)), || {})?;
        Download::new(urls, &path).sha256(self.sha256_prefix()).fetch(progress)?;
        Ok(path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    #[test]
    fn every_entry_has_a_model_and_a_checksum() {
        for weights in pretrained() {
            assert!(std::ptr::eq(find_pretrained(weights.name).unwrap(), weights), "{} is there twice", weights.name);
            assert_eq!(weights.input().unwrap(), [3, weights.crop, weights.crop], "{}", weights.name);
            assert!(weights.resize > weights.crop, "{}", weights.name);
            assert_eq!(weights.classes().count() as i64, find(weights.model).unwrap().model(&[]).unwrap().classes());
            assert_eq!(weights.trained_on().unwrap().name, "ImageNet-1K (ILSVRC 2012)");
            let prefix = weights.sha256_prefix();
            assert!(prefix.len() == 8 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", weights.file);
            let params = find(weights.model).unwrap().model(&[]).unwrap().graph().unwrap().summary().params;
            // wide-resnet-v1 are in float16
            let bytes_per_value = 1e6 * weights.megabytes as f64 / params as f64;
            assert!((1.9..4.2).contains(&bytes_per_value), "{}: {bytes_per_value}", weights.name);
        }
        let error = find_pretrained("resnet18").unwrap_err().to_string();
        assert_eq!(error, "there are no published weights resnet18: did you mean resnet18-imagenet1k-v1?");
        let error = find_pretrained("mobilenet").unwrap_err().to_string();
        assert_eq!(error, "there are no published weights mobilenet: pick a name from the list of published weights");
    }

    /// A server that answers every request with `content`; it ends with the test.
    fn serve(content: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/weights", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).count();
                let length = content.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
                stream.write_all(content).unwrap();
            }
        });
        url
    }

    #[test]
    fn a_file_is_fetched_once_and_checked_by_the_digits_in_its_name() {
        let content = b"weights";
        let digest: String = Sha256::digest(content).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let file: &'static str = Box::leak(format!("lenet5-{digest}.pth").into_boxed_str());
        let weights = Pretrained { file, ..pretrained()[0].clone() };
        let folder = tempfile::tempdir().unwrap();
        let wrong = weights.fetch_from([serve(b"<html>")], folder.path(), &mut |_, _| true).unwrap_err().to_string();
        assert!(wrong.contains("SHA-256") && wrong.contains(&digest) && !wrong.contains('\n'), "{wrong}");
        assert!(!folder.path().join(file).exists());

        let path = weights.fetch_from([serve(b"<html>"), serve(content)], folder.path(), &mut |_, _| true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        let nowhere = "http://127.0.0.1:1/".to_owned();
        assert_eq!(weights.fetch_from([nowhere], folder.path(), &mut |_, _| true).unwrap(), path, "what is there is not fetched");
    }
}
