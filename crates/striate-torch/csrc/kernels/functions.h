// The kernels of one level of instructions: kernels.h includes this for each.

// pool.cpp

// Of pixels that lie `pixel` apart, bytes too; `index`, if there is one, gets the position of each value within its window, and has kMultiple bytes more than
// values.
template <typename T>
void max_pool(const T* x, int64_t pixel, const Pool& pool, T* y, uint8_t* index);
// For each place the gradients of the windows that took its value, in their order.
template <typename T>
void max_pool_gradient(const T* gradient, const uint8_t* index, const Pool& pool, T* to);

// norm.cpp

template <typename T>
void batch_norm(const Norm<T>& norm);
template <typename T>
void batch_norm_gradient(const NormGradient<T>& norm);

// pointwise.cpp

template <typename T>
void multiply(const Product<T>& product);
// Columns in panels, as wide as the level's blocks of products, each [depth][columns]; the last one is filled up with zeros, to `padded` columns in all.
template <typename T>
void pack(const Matrix<T>& matrix, int64_t padded, T* panels);

// weight_gradient.cpp

// The gradient of a convolution's weight into `to` [out, kernel height, kernel width, in].
template <typename T>
void weight_gradient(const Sums<T>& sums, float* to);

// winograd.cpp

template <typename T>
void winograd(const Winograd<T>& convolution);

// winograd_weight.cpp

// A weight transformed and packed in panels: [36, depth * columns].
void winograd_weight(const Kernels& kernels, int64_t depth, int64_t columns, float* to);

// winograd_train.cpp

// The gradient of a weight.
template <typename T>
void winograd_weight_gradient(const WinogradGradient<T>& convolution, const Kernels& result);

// bytes.cpp

void quantize(const float* from, int64_t count, st_scale scale, uint8_t* to);
void dequantize(const uint8_t* from, int64_t count, st_scale scale, float* to);

// jpeg.cpp and resample.cpp: see shim.h

void jpeg_blocks(const int16_t* from, const uint8_t* flat, int64_t count, int64_t stride, uint8_t* to);
int jpeg_pixels(const st_plane* planes, int across, int down, const int64_t* region, uint8_t* to);
int resample(const uint8_t* from, const st_resampling* resampling, int cubic, uint8_t* to);
