//! The C interface of `csrc/shim.h`.
use crate::TorchError;
use std::ffi::{CStr, c_char, c_int, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

#[repr(C)]
pub(crate) struct CGenerator {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct Resampling {
    pub(crate) piece: [i64; 4],
    pub(crate) channels: i64,
    pub(crate) part: [i64; 4],
    pub(crate) size: [i64; 2],
    pub(crate) window: [i64; 4],
}

#[repr(C)]
pub(crate) struct Plane {
    pub(crate) samples: *const u8,
    pub(crate) stride: i64,
    pub(crate) start: [i64; 2],
    pub(crate) size: [i64; 2],
}

/// `striate_host_launch` of `csrc/cuda/host.cpp`.
#[cfg(test)]
pub(crate) type HostLaunch = unsafe extern "C" fn(element: c_int, launch: *const c_void);

#[repr(C)]
pub(crate) struct CStream {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct CGraph {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct CStore {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct CGroup {
    _private: [u8; 0],
}

#[repr(C)]
pub(crate) struct CReducer {
    _private: [u8; 0],
}

/// What bytes stand for: `step * (byte - zero_point)`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct CScale {
    pub(crate) step: f64,
    pub(crate) zero_point: i64,
}

/// `st_foreach_op`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum ForeachOp {
    Add,
    AddValue,
    Mul,
    MulValue,
    MulTensor,
    Div,
    Lerp,
    Addcmul,
    Addcdiv,
    Sqrt,
    Sign,
    ClampMin,
    ClampMax,
    Copy,
}

unsafe extern "C" {
    fn st_free_message(message: *mut c_char);
    pub(crate) fn st_torch_version() -> *const c_char;
    pub(crate) fn st_thread_width(width: c_int) -> c_int;
    pub(crate) fn st_parallel(body: unsafe extern "C" fn(*mut c_void, i64), context: *mut c_void, count: i64);
    pub(crate) fn st_exit(code: c_int) -> !;
    pub(crate) fn st_build_config() -> *mut c_char;
    pub(crate) fn st_memory_format(tensor: *const C_tensor) -> c_int;
    pub(crate) fn st_to_memory_format(tensor: *const C_tensor, channels_last: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_keep_memory();
    pub(crate) fn st_release_memory();
    pub(crate) fn st_may_overwrite(tensor: *const C_tensor) -> c_int;
    pub(crate) fn st_generator_new(seed: u64) -> *mut CGenerator;
    pub(crate) fn st_generator_free(generator: *mut CGenerator);
    pub(crate) fn st_uniform(generator: *mut CGenerator, tensor: *const C_tensor, low: f64, high: f64) -> *mut c_char;
    pub(crate) fn st_normal(generator: *mut CGenerator, tensor: *const C_tensor, mean: f64, std: f64) -> *mut c_char;
    pub(crate) fn st_randperm(generator: *mut CGenerator, n: i64, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_clear_grads(tensors: *const *const C_tensor, n: usize) -> *mut c_char;
    pub(crate) fn st_fused_sgd(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momenta: *const *const C_tensor,
        n: usize,
        lr: f64,
        lr_tensor: *const C_tensor,
        momentum: f64,
        weight_decay: f64,
        nesterov: c_int,
        first_step: c_int,
    ) -> *mut c_char;
    pub(crate) fn st_fused_adam(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        n: usize,
        lr: f64,
        lr_tensor: *const C_tensor,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
    ) -> *mut c_char;
    pub(crate) fn st_foreach(
        op: ForeachOp,
        tensors: *const *const C_tensor,
        a: *const *const C_tensor,
        b: *const *const C_tensor,
        n: usize,
        value: f64,
    ) -> *mut c_char;
    pub(crate) fn st_foreach_norm(tensors: *const *const C_tensor, n: usize, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_has_int8() -> c_int;
    pub(crate) fn st_quantize(values: *const C_tensor, scale: CScale, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_dequantize(bytes: *const C_tensor, scale: CScale, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_count(values: *const C_tensor, low: f64, high: f64, counts: *mut i64, bins: i64) -> *mut c_char;
    pub(crate) fn st_int8_pack_conv(
        weight: *const C_tensor,
        scales: *const C_tensor,
        input: CScale,
        geometry: *const i64,
        groups: i64,
        input_size: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_int8_conv(
        input: *const C_tensor,
        scale: CScale,
        weight: *const C_tensor,
        scales: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        groups: i64,
        relu: c_int,
        output: *const CScale,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_int8_conv_add(
        input: *const C_tensor,
        scale: CScale,
        weight: *const C_tensor,
        scales: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        groups: i64,
        relu: c_int,
        output: CScale,
        other: *const C_tensor,
        other_scale: CScale,
        in_place: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_int8_pack_linear(weight: *const C_tensor, batch: i64, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_int8_linear(
        input: *const C_tensor,
        step: f64,
        weight: *const C_tensor,
        scales: *const C_tensor,
        bias: *const C_tensor,
        relu: c_int,
        output: *const CScale,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_has_bf16_products() -> c_int;
    pub(crate) fn st_pointwise_weight(weight: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_pointwise(
        input: *const C_tensor,
        panels: *const C_tensor,
        bias: *const C_tensor,
        window: *const i64,
        out_channels: i64,
        other: *const C_tensor,
        relu: c_int,
        in_place: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_max_pool(
        input: *const C_tensor,
        window: *const i64,
        out_height: i64,
        out_width: i64,
        relu: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn st_concat_channels(tensors: *const *const C_tensor, n: usize, out: *mut *mut C_tensor) -> c_int;
    pub(crate) fn st_resample(from: *const u8, resampling: *const Resampling, cubic: c_int, to: *mut u8) -> c_int;
    pub(crate) fn st_jpeg_blocks(from: *const i16, flat: *const u8, count: i64, stride: i64, to: *mut u8);
    pub(crate) fn st_jpeg_pixels(planes: *const Plane, across: c_int, down: c_int, region: *const i64, to: *mut u8) -> c_int;
    pub(crate) fn st_winograd(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        padding: *const i64,
        out_channels: i64,
        other: *const C_tensor,
        relu: c_int,
        in_place: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_batch_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        other: *const C_tensor,
        running_mean: *const C_tensor,
        running_var: *const C_tensor,
        counter: *const C_tensor,
        momentum: f64,
        eps: f64,
        relu: c_int,
        out: *mut *mut C_tensor,
        twin: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_cast_all(tensors: *const *const C_tensor, n: usize, kind: c_int, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_cuda_capability(device: c_int, out: *mut c_int) -> *mut c_char;
    pub(crate) fn st_cuda_load(device: c_int, element: c_int, program: *const c_void) -> *mut c_char;
    #[cfg(test)]
    pub(crate) fn st_host_kernels(launch: Option<HostLaunch>);
    pub(crate) fn st_fast_cuda();
    pub(crate) fn st_set_tf32(on: c_int);
    pub(crate) fn st_tf32() -> c_int;
    pub(crate) fn st_unscale(
        grads: *const *const C_tensor,
        n: usize,
        found: *const C_tensor,
        inverse_scale: *const C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_cuda_trouble() -> *mut c_char;
    pub(crate) fn st_stream_new(device: c_int, out: *mut *mut CStream) -> *mut c_char;
    pub(crate) fn st_stream_free(stream: *mut CStream);
    pub(crate) fn st_stream_switch(stream: *mut CStream, former: *mut *mut CStream) -> *mut c_char;
    pub(crate) fn st_copy_ahead(device: c_int, tensor: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_pinned_bytes(size: *const i64, dimensions: usize, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_await_copy(copy: *const C_tensor) -> *mut c_char;
    pub(crate) fn st_has_graphs() -> c_int;
    pub(crate) fn st_graph_pool(pool: *mut u64);
    pub(crate) fn st_graph_begin(stream: *mut CStream, pool: *const u64, out: *mut *mut CGraph) -> *mut c_char;
    pub(crate) fn st_graph_end(stream: *mut CStream, graph: *mut CGraph) -> *mut c_char;
    pub(crate) fn st_graph_replay(graph: *mut CGraph) -> *mut c_char;
    pub(crate) fn st_graph_free(graph: *mut CGraph);
    pub(crate) fn st_cudnn_conv_relu(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        other: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_linear_relu(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_cuda_switches() -> c_int;
    pub(crate) fn st_set_cuda_switches(switches: c_int);
    pub(crate) fn st_autocast(cuda: c_int, kind: c_int) -> c_int;
    pub(crate) fn st_winograd_weight(weight: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_conv3x3(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        padding: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_conv_train(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_conv_relu(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_has_onednn() -> c_int;
    pub(crate) fn st_has_bf16() -> c_int;
    pub(crate) fn st_pack_conv(
        weight: *const C_tensor,
        geometry: *const i64,
        groups: i64,
        input_size: *const i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_conv(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        groups: i64,
        post: *const c_char,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_conv_add(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        geometry: *const i64,
        groups: i64,
        other: *const C_tensor,
        relu: c_int,
        in_place: c_int,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_pack_linear(weight: *const C_tensor, batch: i64, out: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn st_linear(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        post: *const c_char,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn st_store_new(
        host: *const c_char,
        port: u16,
        listener: c_int,
        timeout: i64,
        prefix: *const c_char,
        out: *mut *mut CStore,
    ) -> *mut c_char;
    pub(crate) fn st_store_free(store: *mut CStore);
    pub(crate) fn st_store_set(store: *mut CStore, key: *const c_char, data: *const u8, len: usize) -> *mut c_char;
    pub(crate) fn st_store_get(
        store: *mut CStore,
        key: *const c_char,
        timeout: i64,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn st_store_free_value(data: *mut u8);
    pub(crate) fn st_store_has(store: *mut CStore, key: *const c_char, out: *mut c_int) -> *mut c_char;
    pub(crate) fn st_store_add(store: *mut CStore, key: *const c_char, value: i64, out: *mut i64) -> *mut c_char;
    pub(crate) fn st_c10d_quiet();
    pub(crate) fn st_has_nccl() -> c_int;
    pub(crate) fn st_group_new(
        store: *mut CStore,
        nccl: c_int,
        rank: c_int,
        size: c_int,
        timeout: i64,
        host: *const c_char,
        name: *const c_char,
        out: *mut *mut CGroup,
    ) -> *mut c_char;
    pub(crate) fn st_group_free(group: *mut CGroup);
    pub(crate) fn st_group_all_reduce(group: *mut CGroup, tensor: *const C_tensor) -> *mut c_char;
    pub(crate) fn st_group_broadcast(group: *mut CGroup, tensor: *const C_tensor, root: c_int) -> *mut c_char;
    pub(crate) fn st_group_all_gather(group: *mut CGroup, tensor: *const C_tensor, out: *const *const C_tensor) -> *mut c_char;
    pub(crate) fn st_reducer_new(
        group: *mut CGroup,
        params: *const *const C_tensor,
        n: usize,
        first_bucket: usize,
        bucket: usize,
        find_unused: c_int,
        static_graph: c_int,
        half: c_int,
        out: *mut *mut CReducer,
    ) -> *mut c_char;
    pub(crate) fn st_reducer_free(reducer: *mut CReducer);
    pub(crate) fn st_reducer_prepare(reducer: *mut CReducer, outputs: *const *const C_tensor, n: usize) -> *mut c_char;
    pub(crate) fn st_sync_batch_norm(
        group: *mut CGroup,
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        running_mean: *const C_tensor,
        running_var: *const C_tensor,
        momentum: f64,
        eps: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Takes a message that the shim allocated; null means that the call succeeded.
pub(crate) fn check(message: *mut c_char) -> Result<(), TorchError> {
    match take_string(message) {
        None => Ok(()),
        Some(message) => Err(TorchError::new(&message)),
    }
}

/// Takes and frees a string that the shim allocated.
pub(crate) fn take_string(string: *mut c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the shim returns NUL-terminated strings made by strdup, and gives them away.
    let text = unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is freed once, here.
    unsafe { st_free_message(string) };
    Some(text)
}

/// Runs a shim call that gives a new tensor.
pub(crate) fn tensor_from(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    check(call(&mut out))?;
    // SAFETY: a call that succeeded has written a tensor that is ours to own.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Runs a shim call that gives a new tensor, or 0 where it doesn't take its inputs.
pub(crate) fn tensor_where_taken(call: impl FnOnce(*mut *mut C_tensor) -> c_int) -> Option<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: a call that gave 1 has written a tensor that is ours to own.
    (call(&mut out) == 1).then(|| unsafe { Tensor::from_ptr(out) })
}

/// The pointers of a list of tensors, for the time of one call.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}
