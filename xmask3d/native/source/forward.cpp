// out[t] = sum over taps k and pairs (t, s) of tap k of source[s] * weight[k].
//
// A block of target rows is one unit of work: its sums stay in the second-level cache while tap after tap adds the
// products of the pairs that exist. A register tile takes a handful of pairs of one tap; source rows are read where they
// are, so nothing is gathered. Every row's sum runs over its taps in ascending
// order, whatever the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

template <int MR, int NV>
inline void register_tile(const float* const* source, float* const* sums, const float* weight, int inner) {
  Vec sum[MR][NV];
  const float* x[MR];
  for (int r = 0; r < MR; ++r) {
    x[r] = source[r];
    for (int j = 0; j < NV; ++j) sum[r][j] = load(sums[r] + j * kLanes);
  }
  for (int a = 0; a < inner; ++a, weight += NV * kLanes) {
    Vec w[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) w[j] = load(weight + j * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const Vec value = broadcast(x[r][a]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[r][j] += value * w[j];
    }
  }
  for (int r = 0; r < MR; ++r)
    for (int j = 0; j < NV; ++j) store(sums[r] + j * kLanes, sum[r][j]);
}


// All pairs of one tap in one block, one panel of columns.
template <int NV>
void add_pairs(const float* source, int inner, const int32_t* rows, const uint16_t* places, int64_t count,
                   const float* weight, float* sums, float* spare) {
  constexpr int MR = tile_rows(NV);
  const float* x[MR];
  float* y[MR];
  int64_t pair = 0;
  for (; pair + MR <= count; pair += MR) {
    for (int r = 0; r < MR; ++r) {
      x[r] = source + int64_t(rows[pair + r]) * inner;
      y[r] = sums + int(places[pair + r]) * NV * kLanes;
    }
    register_tile<MR, NV>(x, y, weight, inner);
  }
  const int left = int(count - pair);
  if (!left) return;
  for (int r = 0; r < MR; ++r) {  // what is missing in the last tile is computed in vain
    x[r] = source + int64_t(rows[pair + std::min(r, left - 1)]) * inner;
    y[r] = r < left ? sums + int(places[pair + r]) * NV * kLanes : spare;
  }
  if (left <= MR / 2) register_tile<MR / 2, NV>(x, y, weight, inner);
  else register_tile<MR, NV>(x, y, weight, inner);
}

}  // namespace

extern "C" {

// Bring K x A x B weights, given by strides in elements, into the order of `xm_forward`: panel, tap, input channel, column.
void xm_pack_weight(const float* weight, int64_t tap_step, int64_t inner_step, int64_t width_step, int taps, int inner,
                    int width, float* packed, int threads) {
  const Panels panels(width);
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (int panel = 0; panel < panels.count; ++panel) {
    for (int tap = 0; tap < taps; ++tap) {
      const int columns = panels.size(panel) * kLanes, begin = panels.first(panel) * kLanes;
      const int wanted = std::min(columns, width - begin);
      float* to = packed + int64_t(taps) * inner * begin + int64_t(tap) * inner * columns;
      const float* from = weight + tap * tap_step + begin * width_step;
      for (int a = 0; a < inner; ++a, to += columns)
        for (int n = 0; n < columns; ++n) to[n] = n < wanted ? from[a * inner_step + n * width_step] : 0.f;
    }
  }
}

// `weight` is packed; `out` is targets x width.
void xm_forward(const float* source, int inner, const int64_t* starts, const int32_t* rows, const uint16_t* places,
                int64_t targets, int taps, int block_rows, const float* weight, int width, float* out, int threads) {
  const Panels panels(width);
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> sums((block_rows + 1) * size_t(kMaxVectors * kLanes) + 16);  // a spare row, and to align
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t block = 0; block < blocks; ++block) {
      for (int panel = 0; panel < panels.count; ++panel) {
        const int vectors = panels.size(panel), columns = vectors * kLanes, begin = panels.first(panel) * kLanes;
        const int64_t first = block * block_rows, filled = std::min<int64_t>(block_rows, targets - first);
        float* own = sums.data();
        own += (64 - (reinterpret_cast<uintptr_t>(own) & 63)) % 64 / 4;
        std::memset(own, 0, filled * columns * sizeof(float));
        const float* tap_weight = weight + int64_t(taps) * inner * begin;
        for (int tap = 0; tap < taps; ++tap, tap_weight += int64_t(inner) * columns) {
          const int64_t from = starts[block * taps + tap], count = starts[block * taps + tap + 1] - from;
          XM_DISPATCH_VECTORS(vectors, (add_pairs<NV>(source, inner, rows + from, places + from, count, tap_weight, own,
                                                      own + block_rows * columns)));
        }
        const size_t wanted = std::min(columns, width - begin) * sizeof(float);
        for (int64_t row = 0; row < filled; ++row)
          std::memcpy(out + (first + row) * width + begin, own + row * columns, wanted);
      }
    }
  }
}

int xm_lanes() { return kLanes; }

}  // extern "C"
