// out[t] = sum over taps k and pairs (t, s) of tap k of source[s] * weight[k].
//
// A block of target rows is one unit of work: its sums stay in the second-level cache while tap after tap adds the
// products of the pairs that exist. A register tile takes a handful of pairs of one tap; source rows are read where they
// are, so nothing is gathered (but for tiles.h, which takes 32 pairs). Every row's sum runs over its taps in ascending
// order, whatever the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "tiles.h"
#include "vectors.h"

namespace {

template <int MR, int NV>
inline void product_tile(const float* const* source, float* const* sums, const float* weight, int inner) {
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

#ifdef XM_BF16
// Two neighbouring channels a step: each lane of `weight` holds both.
template <int MR, int NV>
inline void product_tile(const uint16_t* const* source, float* const* sums, const uint16_t* weight, int inner) {
  __m512 sum[MR][NV];
  const uint16_t* x[MR];
  for (int r = 0; r < MR; ++r) {
    x[r] = source[r];
    for (int j = 0; j < NV; ++j) sum[r][j] = _mm512_loadu_ps(sums[r] + j * kLanes);
  }
  for (int a = 0; a < inner; a += 2, weight += NV * 2 * kLanes) {
    __m512bh w[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) w[j] = (__m512bh)_mm512_loadu_si512(weight + j * 2 * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      int32_t two;
      std::memcpy(&two, x[r] + a, 4);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], value, w[j]);
    }
  }
  for (int r = 0; r < MR; ++r)
    for (int j = 0; j < NV; ++j) _mm512_storeu_ps(sums[r] + j * kLanes, sum[r][j]);
}

inline void write_row(uint16_t* to, const float* sums, int width) {
  for (int n = 0; n < width; n += kLanes) {
    const __m256bh low = _mm512_cvtneps_pbh(_mm512_loadu_ps(sums + n));
    const __mmask16 mask = width - n >= kLanes ? 0xFFFF : (1u << (width - n)) - 1;
    _mm256_mask_storeu_epi16(to + n, mask, (__m256i)low);
  }
}
#endif

inline void write_row(float* to, const float* sums, int width) { std::memcpy(to, sums, width * sizeof(float)); }

// All pairs of one tap in one block, one panel of columns.
template <int NV, class Value>
void product_pairs(const Value* source, int inner, const int32_t* rows, const uint16_t* places, int64_t count,
                   const Value* weight, float* sums, float* spare) {
  constexpr int MR = tile_rows(NV);
  const Value* x[MR];
  float* y[MR];
  int64_t pair = 0;
  for (; pair + MR <= count; pair += MR) {
    for (int r = 0; r < MR; ++r) {
      x[r] = source + int64_t(rows[pair + r]) * inner;
      y[r] = sums + int(places[pair + r]) * NV * kLanes;
    }
    product_tile<MR, NV>(x, y, weight, inner);
  }
  const int left = int(count - pair);
  if (!left) return;
  for (int r = 0; r < MR; ++r) {  // what is missing in the last tile is computed in vain
    x[r] = source + int64_t(rows[pair + std::min(r, left - 1)]) * inner;
    y[r] = r < left ? sums + int(places[pair + r]) * NV * kLanes : spare;
  }
  if (left <= MR / 2) product_tile<MR / 2, NV>(x, y, weight, inner);
  else product_tile<MR, NV>(x, y, weight, inner);
}

// A thread's work on all pairs of one tap in one block: `sums` are its rows of one panel of columns.
struct VectorPairs {
  static constexpr int most = kMaxVectors;

  template <class Value>
  void operator()(const Value* source, int inner, const int32_t* rows, const uint16_t* places, int64_t count,
                  const Value* weight, int vectors, float* sums, float* spare) {
    XM_DISPATCH_VECTORS(vectors, (product_pairs<NV>(source, inner, rows, places, count, weight, sums, spare)));
  }
};

#ifdef XM_TILES
// Source rows of 32 pairs are brought together, and their products added to the sums where they belong.
class TilePairs {
 public:
  static constexpr int most = kTileVectors;

  void operator()(const uint16_t* source, int inner, const int32_t* rows, const uint16_t* places, int64_t count,
                  const uint16_t* weight, int vectors, float* sums, float*) {
    const int steps = (inner + kTileDepth - 1) / kTileDepth, channels = steps * kTileDepth, columns = vectors * kLanes;
    if (room_.size() < size_t(2 * kTileRows * channels + 32)) room_.resize(2 * kTileRows * channels + 32);
    uint16_t* x = room_.data();
    x += (64 - (reinterpret_cast<uintptr_t>(x) & 63)) % 64 / 2;
    const __mmask32 last = inner % kTileDepth ? (1u << inner % kTileDepth) - 1 : 0xFFFFFFFF;
    for (int64_t pair = 0; pair < count; pair += 2 * kTileRows) {
      const int filled = int(std::min<int64_t>(2 * kTileRows, count - pair));
      for (int r = 0; r < filled; ++r) {  // further rows keep what they had: nobody reads their products
        const uint16_t* from = source + int64_t(rows[pair + r]) * inner;
        uint16_t* to = x + r * channels;
        int a = 0;
        for (; a < channels - kTileDepth; a += kTileDepth) _mm512_store_si512(to + a, _mm512_loadu_si512(from + a));
        _mm512_store_si512(to + a, _mm512_maskz_loadu_epi16(last, from + a));
      }
      for (int vector = 0; vector < vectors; vector += 2)
        tile_product(filled > kTileRows, vector + 1 < vectors, x, {channels, kTileRows * channels, kTileDepth},
                     weight + 2 * vector * kLanes, {2 * columns, 2 * kLanes, kTileDepth * columns}, steps,
                     products_ + vector * kLanes, columns);
      for (int r = 0; r < filled; ++r) {
        float* to = sums + int64_t(places[pair + r]) * columns;
        const float* from = products_ + r * columns;
        for (int n = 0; n < columns; n += kLanes) store(to + n, load(to + n) + load(from + n));
      }
    }
  }

 private:
  TileScope scope_;
  std::vector<uint16_t> room_;
  alignas(64) float products_[2 * kTileRows * kTileVectors * kLanes];
};
#endif

template <class Pairs, class Value>
void product(const Value* source, int inner, const int64_t* starts, const int32_t* rows, const uint16_t* places,
             int64_t targets, int taps, int block_rows, const Value* weight, int channels, int width, Value* out,
             int threads) {
  const Panels panels(width, Pairs::most);
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
#pragma omp parallel num_threads(threads)
  {
    Pairs add_pairs;
    std::vector<float> sums((block_rows + 1) * size_t(Pairs::most * kLanes) + 16);  // a spare row, and to align
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t block = 0; block < blocks; ++block) {
      for (int panel = 0; panel < panels.count; ++panel) {
        const int vectors = panels.size(panel), columns = vectors * kLanes, begin = panels.first(panel) * kLanes;
        const int64_t first = block * block_rows, filled = std::min<int64_t>(block_rows, targets - first);
        float* own = sums.data();
        own += (64 - (reinterpret_cast<uintptr_t>(own) & 63)) % 64 / 4;
        std::memset(own, 0, filled * columns * sizeof(float));
        const Value* panel_weight = weight + int64_t(taps) * channels * begin;
        for (int tap = 0; tap < taps; ++tap) {
          const int64_t from = starts[block * taps + tap], count = starts[block * taps + tap + 1] - from;
          const Value* tap_weight = panel_weight + int64_t(tap) * channels * columns;
          add_pairs(source, inner, rows + from, places + from, count, tap_weight, vectors, own,
                    own + block_rows * columns);
        }
        const int wanted = std::min(columns, width - begin);
        for (int64_t row = 0; row < filled; ++row)
          write_row(out + (first + row) * width + begin, own + row * columns, wanted);
      }
    }
  }
}

#ifdef XM_BF16
inline __mmask16 first_lanes(int count) { return count >= 16 ? 0xFFFF : count > 0 ? (1u << count) - 1 : 0; }

// One panel of a tap: rows of `from` are input channels.
void pack_rows(const float* from, int64_t step, int inner, int channels, int wanted, int columns, uint16_t* to) {
  for (int a = 0; a < channels; a += 2, to += 2 * columns) {
    for (int n = 0; n < columns; n += 16) {
      const auto row = [&](int channel) {
        const __mmask16 mask = channel < inner ? first_lanes(wanted - n) : 0;
        return (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + channel * step + n));
      };
      _mm512_storeu_si512(to + 2 * n, side_by_side(row(a), row(a + 1)));
    }
  }
}

// The same where rows of `from` are columns of the panel.
void pack_columns(const float* from, int64_t step, int inner, int channels, int wanted, int columns, uint16_t* to) {
  alignas(64) uint16_t rows[16 * 32], turned[16 * 32];
  const uint16_t* starts[16];
  for (int n = 0; n < columns; n += 16) {
    for (int a = 0; a < channels; a += 32) {
      for (int r = 0; r < 16; ++r) {
        const float* row = from + (n + r) * step + a;
        const int there = n + r < wanted ? inner - a : 0;
        const __m512 low = _mm512_maskz_loadu_ps(first_lanes(there), row);
        const __m512 high = _mm512_maskz_loadu_ps(first_lanes(there - 16), row + 16);
        starts[r] = rows + r * 32;
        _mm512_store_si512(rows + r * 32, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
      transpose16(starts, turned, 32);
      for (int two = 0; two < std::min(16, (channels - a) / 2); ++two)
        _mm512_storeu_si512(to + (a + 2 * two) * columns + 2 * n, _mm512_load_si512(turned + two * 32));
    }
  }
}
#endif

}  // namespace

extern "C" {

// Bring K x A x B weights, given by strides in elements, into the order of `product`: panel, tap, input channel, column.
void xm_pack_float(const float* weight, int64_t tap_step, int64_t inner_step, int64_t width_step, int taps, int inner,
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

void xm_product_float(const float* source, int inner, const int64_t* starts, const int32_t* rows,
                      const uint16_t* places, int64_t targets, int taps, int block_rows, const float* weight, int width,
                      float* out, int threads) {
  product<VectorPairs>(source, inner, starts, rows, places, targets, taps, block_rows, weight, inner, width, out,
                       threads);
}

int xm_has_bf16() {
#ifdef XM_BF16
  return 1;
#else
  return 0;
#endif
}

int xm_lanes() { return kLanes; }

#ifdef XM_BF16
// Input channels that packed weights have for `inner` of them.
int xm_packed_channels_bf16(int inner) {
  const int step = in_tiles(inner) ? kTileDepth : 2;
  return (inner + step - 1) / step * step;
}

// As above, rounded to bfloat16, neighbouring input channels interleaved; those that are added are zero. One of
// `inner_step` and `width_step` is 1.
void xm_pack_bf16(const float* weight, int64_t tap_step, int64_t inner_step, int64_t width_step, int taps, int inner,
                  int width, uint16_t* packed, int threads) {
  const Panels panels(width, in_tiles(inner) ? kTileVectors : kMaxVectors);
  const int channels = xm_packed_channels_bf16(inner);
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (int panel = 0; panel < panels.count; ++panel) {
    for (int tap = 0; tap < taps; ++tap) {
      const int columns = panels.size(panel) * kLanes, begin = panels.first(panel) * kLanes;
      const int wanted = std::min(columns, width - begin);
      uint16_t* to = packed + int64_t(taps) * channels * begin + int64_t(tap) * channels * columns;
      const float* from = weight + tap * tap_step + begin * width_step;
      if (width_step == 1) pack_rows(from, inner_step, inner, channels, wanted, columns, to);
      else pack_columns(from, width_step, inner, channels, wanted, columns, to);
    }
  }
}

void xm_product_bf16(const uint16_t* source, int inner, const int64_t* starts, const int32_t* rows,
                     const uint16_t* places, int64_t targets, int taps, int block_rows, const uint16_t* weight,
                     int width, uint16_t* out, int threads) {
  const int channels = xm_packed_channels_bf16(inner);
#ifdef XM_TILES
  if (in_tiles(inner))
    return product<TilePairs>(source, inner, starts, rows, places, targets, taps, block_rows, weight, channels, width,
                              out, threads);
#endif
  product<VectorPairs>(source, inner, starts, rows, places, targets, taps, block_rows, weight, channels, width, out,
                       threads);
}
#endif

}  // extern "C"
