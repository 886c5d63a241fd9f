// Batch norm over rows, with the sum of a shortcut and ReLU in the same pass over memory.
//
// Sums run over chunks of rows first, in float32, and over chunks in float64 in a fixed order: the same result on any
// number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kChunk = 256;  // rows that stay in the cache between two looks at them

inline float widen(float value) { return value; }

inline float widen(uint16_t value) {
  const uint32_t bits = uint32_t(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}

inline void narrow(float value, float* to) { *to = value; }

inline void narrow(float value, uint16_t* to) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  *to = uint16_t(value == value ? rounded : 0x7FC0);
}

// Run `chunk(first, last, one, two)` on chunks of rows; `one` and `two` are its own zeroed sums of `width` numbers.
// `merge(rows, one, two)` then sees the chunks in order.
template <class Chunk, class Merge>
void over_chunks(int64_t rows, int width, int threads, const Chunk& chunk, const Merge& merge) {
  const int64_t chunks = (rows + kChunk - 1) / kChunk;
  std::vector<float> sums(size_t(chunks) * width * 2, 0.f);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t index = 0; index < chunks; ++index) {
    float* own = sums.data() + size_t(index) * width * 2;
    chunk(index * kChunk, std::min(rows, (index + 1) * kChunk), own, own + width);
  }
  for (int64_t index = 0; index < chunks; ++index) {
    const float* own = sums.data() + size_t(index) * width * 2;
    merge(std::min<int64_t>(kChunk, rows - index * kChunk), own, own + width);
  }
}

// Mean and sum of squared deviations of every column.
template <class Value>
void statistics(const Value* x, int64_t rows, int width, double* mean, double* squares, int threads) {
  std::fill(mean, mean + width, 0.0);
  std::fill(squares, squares + width, 0.0);
  const auto chunk = [=](int64_t first, int64_t last, float* average, float* deviation) {
    for (int64_t row = first; row < last; ++row)
      for (int c = 0; c < width; ++c) average[c] += widen(x[row * width + c]);
    for (int c = 0; c < width; ++c) average[c] /= float(last - first);
    for (int64_t row = first; row < last; ++row)
      for (int c = 0; c < width; ++c) {
        const float off = widen(x[row * width + c]) - average[c];
        deviation[c] += off * off;
      }
  };
  double seen = 0;
  over_chunks(rows, width, threads, chunk, [&](int64_t count, const float* average, const float* deviation) {
    const double share = double(count) / (seen + double(count));
    for (int c = 0; c < width; ++c) {  // Chan, Golub and LeVeque: merge two samples' moments
      const double difference = average[c] - mean[c];
      mean[c] += difference * share;
      squares[c] += deviation[c] + difference * difference * seen * share;
    }
    seen += double(count);
  });
}

// y = x * scale + shift (+ shortcut), or 0 where that is negative.
template <class Value, bool Add, bool Relu>
void apply(const Value* x, const Value* shortcut, int64_t rows, int width, const float* scale, const float* shift,
           Value* y, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = row * width;
    for (int c = 0; c < width; ++c) {
      float value = widen(x[first + c]) * scale[c] + shift[c];
      if (Add) value += widen(shortcut[first + c]);
      if (Relu) value = value > 0.f ? value : 0.f;
      narrow(value, y + first + c);
    }
  }
}

// The gradient before ReLU: that of y where y is positive. `y` is the output, or null to tell from x whether it is.
template <class Value>
inline float passed(const Value* gradient, const Value* y, const Value* x, int64_t at, int c, bool relu,
                    const float* scale, const float* shift) {
  const float value = widen(gradient[at + c]);
  if (!relu) return value;
  return (y ? widen(y[at + c]) : widen(x[at + c]) * scale[c] + shift[c]) > 0.f ? value : 0.f;
}

template <class Value, bool Output, bool Relu>
void backward_sums(const Value* gradient, const Value* y, const Value* x, int64_t rows, int width, const float* mean,
                   const float* scale, const float* shift, Value* before, double* sum, double* product, int threads) {
  std::fill(sum, sum + width, 0.0);
  std::fill(product, product + width, 0.0);
  const auto chunk = [=](int64_t first, int64_t last, float* own, float* own_product) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t at = row * width;
      for (int c = 0; c < width; ++c) {
        const float value = passed(gradient, Output ? y : nullptr, x, at, c, Relu, scale, shift);
        if (Output) narrow(value, before + at + c);
        own[c] += value;
        own_product[c] += value * (widen(x[at + c]) - mean[c]);
      }
    }
  };
  over_chunks(rows, width, threads, chunk, [&](int64_t, const float* own, const float* own_product) {
    for (int c = 0; c < width; ++c) {
      sum[c] += own[c];
      product[c] += own_product[c];
    }
  });
}

// Gradient of x: g * scale - (x - mean) * slope - offset, with g as above.
template <class Value, bool Relu>
void backward_apply(const Value* gradient, const Value* x, int64_t rows, int width, const float* mean,
                    const float* scale, const float* shift, const float* slope, const float* offset, Value* out,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * width;
    for (int c = 0; c < width; ++c) {
      const float value = passed(gradient, static_cast<const Value*>(nullptr), x, at, c, Relu, scale, shift);
      narrow(value * scale[c] - (widen(x[at + c]) - mean[c]) * slope[c] - offset[c], out + at + c);
    }
  }
}

}  // namespace

#define XM_NORM(SUFFIX, VALUE)                                                                                        \
  void xm_norm_statistics_##SUFFIX(const VALUE* x, int64_t rows, int width, double* mean, double* squares,            \
                                   int threads) {                                                                     \
    statistics(x, rows, width, mean, squares, threads);                                                               \
  }                                                                                                                   \
  void xm_norm_apply_##SUFFIX(const VALUE* x, const VALUE* shortcut, int64_t rows, int width, const float* scale,     \
                              const float* shift, int relu, VALUE* y, int threads) {                                  \
    const auto run = shortcut ? (relu ? apply<VALUE, true, true> : apply<VALUE, true, false>)                         \
                              : (relu ? apply<VALUE, false, true> : apply<VALUE, false, false>);                      \
    run(x, shortcut, rows, width, scale, shift, y, threads);                                                          \
  }                                                                                                                   \
  void xm_norm_backward_sums_##SUFFIX(const VALUE* gradient, const VALUE* y, const VALUE* x, int64_t rows, int width, \
                                      const float* mean, const float* scale, const float* shift, int relu,            \
                                      VALUE* before, double* sum, double* product, int threads) {                     \
    const auto run = y ? (relu ? backward_sums<VALUE, true, true> : backward_sums<VALUE, true, false>)                \
                       : (relu ? backward_sums<VALUE, false, true> : backward_sums<VALUE, false, false>);             \
    run(gradient, y, x, rows, width, mean, scale, shift, before, sum, product, threads);                              \
  }                                                                                                                   \
  void xm_norm_backward_apply_##SUFFIX(const VALUE* gradient, const VALUE* x, int64_t rows, int width,                \
                                       const float* mean, const float* scale, const float* shift, const float* slope, \
                                       const float* offset, int relu, VALUE* out, int threads) {                      \
    const auto run = relu ? backward_apply<VALUE, true> : backward_apply<VALUE, false>;                               \
    run(gradient, x, rows, width, mean, scale, shift, slope, offset, out, threads);                                   \
  }

extern "C" {
XM_NORM(float, float)
XM_NORM(bf16, uint16_t)
}
