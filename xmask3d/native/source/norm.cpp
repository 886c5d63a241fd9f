// Batch norm of the rows of a matrix together with what follows it, y = relu(scale * x + shift + shortcut), and its
// gradients, each in as few passes over memory as there can be.
//
// Matrices are float32 or bfloat16, row by row; all is computed in float32 and rounded once. Sums are taken over
// chunks of rows and then over the chunks in double, in the same order for any number of threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t kChunk = 64;  // rows that stay in the first caches

typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t BitVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));

// What is done to a vector of channels, or to one of the channels that are left.
inline Vec zero_where_negative(Vec y) { return Vec(IntVec(y) & ~IntVec(y < 0)); }  // what is no number stays none
inline float zero_where_negative(float y) { return y < 0 ? 0.0f : y; }
inline Vec zero_where_cut(Vec g, Vec y) { return Vec(IntVec(g) & ~IntVec(y <= 0)); }
inline float zero_where_cut(float g, float y) { return y <= 0 ? 0.0f : g; }

// A matrix of either type; `step` numbers from row to row.
struct Matrix {
  void* data;
  bool low;
  int64_t step;

  explicit operator bool() const { return data; }

  template <typename V>
  V get(int64_t row, int channel) const;
  template <typename V>
  void put(int64_t row, int channel, V value) const;

 private:
  float* wide(int64_t row, int channel) const { return static_cast<float*>(data) + row * step + channel; }
  uint16_t* half(int64_t row, int channel) const { return static_cast<uint16_t*>(data) + row * step + channel; }
};

template <>
inline Vec Matrix::get<Vec>(int64_t row, int channel) const {
  if (!low) return load(wide(row, channel));
  HalfVec bits;
  std::memcpy(&bits, half(row, channel), sizeof bits);
  return Vec(__builtin_convertvector(bits, BitVec) << 16);
}

template <>
inline float Matrix::get<float>(int64_t row, int channel) const {
  if (!low) return *wide(row, channel);
  const uint32_t bits = uint32_t(*half(row, channel)) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// To the nearest bfloat16, ties to even; what is no number stays none.
template <>
inline void Matrix::put<Vec>(int64_t row, int channel, Vec value) const {
  if (!low) return store(wide(row, channel), value);
  const BitVec bits = BitVec(value), none = BitVec(value != value);
  const BitVec rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const HalfVec kept = __builtin_convertvector((rounded & ~none) | (none & 0x7FC0u), HalfVec);
  std::memcpy(half(row, channel), &kept, sizeof kept);
}

template <>
inline void Matrix::put<float>(int64_t row, int channel, float value) const {
  if (!low) {
    *wide(row, channel) = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  *half(row, channel) = value != value ? 0x7FC0 : uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <typename V>
inline V from_array(const float* at) {
  V value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Call `body(V(), c)` for all channels: a vector of them from c on, and one by one what is left.
template <typename Body>
void for_channels(int channels, const Body& body) {
  int c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(Vec{}, c);
  for (; c < channels; ++c) body(0.0f, c);
}

struct Chunk {
  int64_t first, end;
  Chunk(int64_t index, int64_t rows) : first(index * kChunk), end(std::min(rows, first + kChunk)) {}
};

int64_t chunks_of(int64_t rows) { return (rows + kChunk - 1) / kChunk; }

// Sum over rows of what `term` makes of each, as four sums, so that none waits for the one before.
template <typename V, typename Term>
inline V sum_rows(const Chunk& chunk, const Term& term) {
  V sum[4] = {};
  int64_t i = chunk.first;
  for (; i + 4 <= chunk.end; i += 4)
    for (int k = 0; k < 4; ++k) sum[k] += term(i + k);
  for (; i < chunk.end; ++i) sum[0] += term(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Mean and biased variance of every column.
void statistics(const Matrix& x, int64_t rows, int channels, double* mean, double* variance, int threads) {
  const int64_t chunks = chunks_of(rows);
  std::vector<float> found(2 * chunks * channels);  // of each chunk: means, and sums of squares about them
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks; ++k) {
    const Chunk chunk(k, rows);
    float *middles = found.data() + 2 * k * channels, *squares = middles + channels;
    for_channels(channels, [&](auto kind, int c) {
      using V = decltype(kind);
      const auto value = [&](int64_t i) { return x.get<V>(i, c); };
      const V middle = sum_rows<V>(chunk, value) / float(chunk.end - chunk.first);
      const V square = sum_rows<V>(chunk, [&](int64_t i) { return (value(i) - middle) * (value(i) - middle); });
      std::memcpy(middles + c, &middle, sizeof middle);
      std::memcpy(squares + c, &square, sizeof square);
    });
  }
  std::fill(mean, mean + channels, 0.0);
  std::fill(variance, variance + channels, 0.0);
  for (int64_t k = 0; k < chunks; ++k) {  // Chan, Golub and LeVeque's way of joining two sets
    const Chunk chunk(k, rows);
    const double before = double(chunk.first), more = double(chunk.end - chunk.first);
    const double share = more / (before + more);
    const float *middles = found.data() + 2 * k * channels, *squares = middles + channels;
    for (int c = 0; c < channels; ++c) {
      const double apart = middles[c] - mean[c];
      variance[c] += squares[c] + apart * apart * (before * share);
      mean[c] += apart * share;
    }
  }
  for (int c = 0; c < channels; ++c) variance[c] /= double(rows);
}

// The gradient of what came before ReLU: the sum of those of the results, where the result is not cut off.
struct Gradient {
  Matrix first, second, result;

  template <typename V>
  V get(int64_t row, int channel) const {
    V g = first.get<V>(row, channel);
    if (second) g += second.get<V>(row, channel);
    return result ? zero_where_cut(g, result.get<V>(row, channel)) : g;
  }
};

}  // namespace

extern "C" {

// `mean` and `inverse` (of the standard deviation) are results; in training they are the batch's and move the running
// ones. `wide` (float32) and `narrow` (bfloat16) are the result, either may be null; `shortcut` may be null.
void xm_norm_forward(void* x, int x_low, void* shortcut, int shortcut_low, int64_t rows, int channels,
                     const float* weight, const float* bias, float* running_mean, float* running_variance,
                     float momentum, float eps, int training, int relu, float* mean, float* inverse, void* wide,
                     void* narrow, int threads) {
  const Matrix from{x, x_low != 0, channels}, added{shortcut, shortcut_low != 0, channels};
  const Matrix one{wide, false, channels}, other{narrow, true, channels};
  std::vector<double> middle(running_mean, running_mean + channels);
  std::vector<double> variance(running_variance, running_variance + channels);
  if (training) {
    statistics(from, rows, channels, middle.data(), variance.data(), threads);
    for (int c = 0; c < channels; ++c) {
      running_mean[c] += momentum * (float(middle[c]) - running_mean[c]);
      running_variance[c] += momentum * (float(variance[c] * rows / (rows - 1)) - running_variance[c]);
    }
  }
  std::vector<float> scales(channels), shifts(channels);
  for (int c = 0; c < channels; ++c) {
    mean[c] = float(middle[c]);
    inverse[c] = float(1 / std::sqrt(variance[c] + eps));
    scales[c] = inverse[c] * weight[c];
    shifts[c] = float(bias[c] - middle[c] * scales[c]);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks_of(rows); ++k) {
    const Chunk chunk(k, rows);
    for_channels(channels, [&](auto kind, int c) {
      using V = decltype(kind);
      const V scale = from_array<V>(scales.data() + c), shift = from_array<V>(shifts.data() + c);
      for (int64_t i = chunk.first; i < chunk.end; ++i) {
        V y = from.get<V>(i, c) * scale + shift;
        if (added) y += added.get<V>(i, c);
        if (relu) y = zero_where_negative(y);
        if (one) one.put<V>(i, c, y);
        if (other) other.put<V>(i, c, y);
      }
    });
  }
}

// Gradients of the training form from those of its results, float32 `wide` and bfloat16 `narrow` with their row steps,
// either null. `result` is null without ReLU; `for_x` has the type of x, `for_shortcut` (may be null) that of the
// shortcut.
void xm_norm_backward(void* x, int x_low, void* wide, int64_t wide_step, void* narrow, int64_t narrow_step,
                      void* result, int result_low, int64_t rows, int channels, const float* weight, const float* mean,
                      const float* inverse, void* for_x, void* for_shortcut, int shortcut_low, float* for_weight,
                      float* for_bias, int threads) {
  const Matrix from{x, x_low != 0, channels}, to{for_x, x_low != 0, channels};
  const Matrix shortcut{for_shortcut, shortcut_low != 0, channels};
  const Matrix one{wide, false, wide_step}, other{narrow, true, narrow_step};
  const Gradient gradient{wide ? one : other, wide ? other : Matrix{}, {result, result_low != 0, channels}};
  const int64_t chunks = chunks_of(rows);
  std::vector<float> found(2 * chunks * channels);  // of each chunk: sums of g, and of g times (x - mean)
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks; ++k) {
    const Chunk chunk(k, rows);
    float *plain = found.data() + 2 * k * channels, *tilted = plain + channels;
    for_channels(channels, [&](auto kind, int c) {
      using V = decltype(kind);
      const V middle = from_array<V>(mean + c);
      V sums[2][2] = {};  // in turns, so that none waits for the one before
      for (int64_t i = chunk.first; i < chunk.end; ++i) {
        const V g = gradient.get<V>(i, c);
        if (shortcut) shortcut.put<V>(i, c, g);
        sums[i & 1][0] += g;
        sums[i & 1][1] += g * (from.get<V>(i, c) - middle);
      }
      const V both[2] = {sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]};
      std::memcpy(plain + c, &both[0], sizeof(V));
      std::memcpy(tilted + c, &both[1], sizeof(V));
    });
  }
  std::vector<double> total(2 * channels, 0.0);
  for (int64_t k = 0; k < chunks; ++k)
    for (int c = 0; c < 2 * channels; ++c) total[c] += found[2 * k * channels + c];
  std::vector<float> scales(channels), lifts(channels), tilts(channels);
  for (int c = 0; c < channels; ++c) {
    for_bias[c] = float(total[c]);
    for_weight[c] = float(total[channels + c] * inverse[c]);
    scales[c] = weight[c] * inverse[c];
    lifts[c] = float(total[c] / rows);
    tilts[c] = float(total[channels + c] / rows * inverse[c] * inverse[c]);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t k = 0; k < chunks; ++k) {
    const Chunk chunk(k, rows);
    for_channels(channels, [&](auto kind, int c) {
      using V = decltype(kind);
      const V scale = from_array<V>(scales.data() + c), lift = from_array<V>(lifts.data() + c);
      const V tilt = from_array<V>(tilts.data() + c), middle = from_array<V>(mean + c);
      for (int64_t i = chunk.first; i < chunk.end; ++i)
        to.put<V>(i, c, scale * (gradient.get<V>(i, c) - lift - (from.get<V>(i, c) - middle) * tilt));
    });
  }
}

}  // extern "C"
