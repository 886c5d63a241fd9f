// total[k] = sum over the pairs (t, s) of tap k of the outer product of source[s] and target[t].
//
// A thread owns some taps (or parts of their rows) and walks through all blocks, so that no two threads add to the same
// number and the order of every sum is that of the pairs, whatever the number of threads.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "tiles.h"
#include "vectors.h"

namespace {

struct Item {
  int tap, first, last;  // rows [first, last) of total[tap], `first` a multiple of some unit
  int64_t cost;
};

// Shares of about equal cost: the costliest item goes to the thread that has least.
std::vector<std::vector<Item>> share(const int64_t* starts, int64_t blocks, int taps, int inner, int threads,
                                     int unit) {
  const int parts = std::max(1, std::min((4 * threads + taps - 1) / taps, inner / 32));
  std::vector<Item> items;
  for (int tap = 0; tap < taps; ++tap) {
    int64_t pairs = 0;
    for (int64_t block = 0; block < blocks; ++block)
      pairs += starts[block * taps + tap + 1] - starts[block * taps + tap];
    for (int part = 0; part < parts; ++part) {
      const int first = inner * part / parts / unit * unit;
      const int last = part + 1 < parts ? inner * (part + 1) / parts / unit * unit : inner;
      items.push_back({tap, first, last, pairs * (last - first)});
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.cost > b.cost; });
  std::vector<std::vector<Item>> shares(threads);
  std::vector<int64_t> load(threads, 0);
  for (const Item& item : items) {
    const size_t least = std::min_element(load.begin(), load.end()) - load.begin();
    shares[least].push_back(item);
    load[least] += item.cost;
  }
  return shares;
}

template <int MR, int NV>
inline void add_tile(const Vec (&sum)[MR][NV], float* total, int width) {
  for (int r = 0; r < MR; ++r)
    for (int j = 0; j < NV; ++j) store(total + r * width + j * kLanes, load(total + r * width + j * kLanes) + sum[r][j]);
}

template <int MR, int NV>
inline void outer_tile(const float* source, int inner, const int32_t* rows, const float* target, int width,
                       const uint16_t* places, int64_t count, float* total) {
  Vec sum[MR][NV] = {};
  for (int64_t pair = 0; pair < count; ++pair) {
    const float* x = source + int64_t(rows[pair]) * inner;
    const float* y = target + int64_t(places[pair]) * width;
    Vec values[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) values[j] = load(y + j * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      const Vec value = broadcast(x[r]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[r][j] += value * values[j];
    }
  }
  add_tile<MR, NV>(sum, total, width);
}

// One panel of columns: tiles of MR rows of the total, and smaller ones for what is left.
template <int MR, int NV>
void outer_rows(const float* source, int inner, const int32_t* rows, const float* target, int width,
                const uint16_t* places, int64_t count, float* total, int first, int last) {
  for (; first + MR <= last; first += MR)
    outer_tile<MR, NV>(source + first, inner, rows, target, width, places, count, total + int64_t(first) * width);
  if constexpr (MR > 1)
    if (first < last)
      outer_rows<MR / 2, NV>(source, inner, rows, target, width, places, count, total, first, last);
}

#ifdef XM_BF16
// Rows of two pairs interleaved channel by channel, as the dot product of bfloat16 wants them; the second may be none.
inline void interleave(const uint16_t* one, const uint16_t* two, int count, uint16_t* to) {
  for (int a = 0; a < count; a += 16) {
    const __mmask16 mask = count - a >= 16 ? 0xFFFF : (1u << (count - a)) - 1;
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, one + a));
    __m512i both = low;
    if (two) {
      const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, two + a));
      both = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    _mm512_mask_storeu_epi32(to + 2 * a, mask, both);
  }
}

template <int MR, int NV>
inline void outer_tile_bf16(const uint16_t* source, int64_t source_step, const uint16_t* target, int64_t target_step,
                            int64_t steps, float* total, int width) {
  __m512 sum[MR][NV];
  for (int r = 0; r < MR; ++r)
    for (int j = 0; j < NV; ++j) sum[r][j] = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step, source += source_step, target += target_step) {
    __m512bh values[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) values[j] = (__m512bh)_mm512_loadu_si512(target + j * 2 * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < MR; ++r) {
      int32_t two;
      std::memcpy(&two, source + 2 * r, 4);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], value, values[j]);
    }
  }
  for (int r = 0; r < MR; ++r)
    for (int j = 0; j < NV; ++j) {
      float* to = total + r * width + j * kLanes;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum[r][j]));
    }
}

template <int MR, int NV>
void outer_rows_bf16(const uint16_t* source, int64_t source_step, const uint16_t* target, int64_t target_step,
                     int64_t steps, float* total, int width, int count) {
  int row = 0;
  for (; row + MR <= count; row += MR)
    outer_tile_bf16<MR, NV>(source + 2 * row, source_step, target, target_step, steps, total + int64_t(row) * width, width);
  if constexpr (MR > 1)
    if (row < count)
      outer_rows_bf16<MR / 2, NV>(source + 2 * row, source_step, target, target_step, steps,
                                  total + int64_t(row) * width, width, count - row);
}
#endif

#ifdef XM_TILES
constexpr int kTile = kTileRows * kTileDepth;  // numbers of a tile
constexpr int kPairRows = 1024;                // target rows whose pairs are multiplied at once

// The pairs of a tap in some blocks as tiles: the sum runs over 32 pairs a step, in the order 0, 16, 1, 17, ..., as two
// rows of 16 pairs are quickest brought together.
class OuterTiles {
 public:
  // 32 channels of 32 rows, as two tiles whose rows are channels.
  void left(const uint16_t* const* rows, int channels, uint16_t* first, uint16_t* second) {
    const uint16_t* from[kTileDepth];
    const __mmask32 mask = channels < kTileDepth ? (1u << channels) - 1 : 0xFFFFFFFF;
    for (int r = 0; r < kTileDepth; ++r) {
      from[r] = rows[r];
      if (!rows[r] || channels < kTileDepth) {
        from[r] = rows_ + r * kTileDepth;
        _mm512_store_si512(rows_ + r * kTileDepth,
                           rows[r] ? _mm512_maskz_loadu_epi16(mask, rows[r]) : _mm512_setzero_si512());
      }
    }
    transpose16(from, low_, kTileDepth);
    transpose16(from + 16, high_, kTileDepth);
    for (int two = 0; two < 16; ++two) {
      const __m512i low = _mm512_load_si512(low_ + two * 32), high = _mm512_load_si512(high_ + two * 32);
      uint16_t* to = (two < 8 ? first : second) + two % 8 * 64;
      _mm512_store_si512(to, _mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16)));
      _mm512_store_si512(to + 32, _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(low, 16), high));
    }
  }

  // 32 rows, as a tile for every 16 columns, `step` apart.
  static void right(const uint16_t* const* rows, int width, uint16_t* to, int64_t step) {
    for (int r = 0; r < 16; ++r, to += 32) {
      uint16_t* tile = to;
      for (int n = 0; n < width; n += 16, tile += step) {
        const auto values = [&](const uint16_t* row) {
          return row ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + n)) : _mm256_setzero_si256();
        };
        _mm512_store_si512(tile, side_by_side(values(rows[r]), values(rows[r + 16])));
      }
    }
  }

  // `steps` times 32 pairs have been put into tiles x and y: add to `rows` rows of the total.
  void add(const uint16_t* x, const uint16_t* y, int64_t steps, int rows, int width, float* total) {
    const TilePlaces at{kTileDepth, steps * kTile, kTile};
    for (int row = 0; row < rows; row += 32) {
      const int filled = std::min(32, rows - row);
      for (int column = 0; column < width; column += 32) {
        const bool two = width - column > 16;
        tile_product(filled > 16, two, x + row / 16 * steps * kTile, at, y + column / 16 * steps * kTile, at, steps,
                     products_, 32);
        for (int r = 0; r < filled; ++r) {
          float* to = total + int64_t(row + r) * width + column;
          const float* from = products_ + r * 32;
          store(to, load(to) + load(from));
          if (two) store(to + kLanes, load(to + kLanes) + load(from + kLanes));
        }
      }
    }
  }

 private:
  TileScope scope_;
  alignas(64) uint16_t rows_[32 * kTileDepth], low_[kTile], high_[kTile];
  alignas(64) float products_[32 * 32];
};
#endif

// Calls work(item, first row of a block, its first pair, number of pairs) for all.
template <class Work>
void for_own_items(const int64_t* starts, int64_t targets, int taps, int block_rows, int inner, int threads,
                   const Work& work) {
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
  const auto shares = share(starts, blocks, taps, inner, threads, 1);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<uint16_t> buffer;
    for (int64_t block = 0; block < blocks; ++block) {
      for (const Item& item : shares[thread]) {
        const int64_t from = starts[block * taps + item.tap], count = starts[block * taps + item.tap + 1] - from;
        if (count) work(item, block * block_rows, from, count, buffer);
      }
    }
  }
}

#ifdef XM_TILES
void outer_in_tiles(const uint16_t* source, int inner, const uint16_t* target, int width, const int64_t* starts,
                    const int32_t* rows, const uint16_t* places, int64_t targets, int taps, int block_rows,
                    float* total, int threads) {
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
  const auto shares = share(starts, blocks, taps, inner, threads, kTileDepth);
  // Many pairs at once, for reading and writing the total costs as much as multiplying hundreds of them.
  const int64_t some = std::max(1, kPairRows / block_rows);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    OuterTiles tiles;
    std::vector<uint16_t> buffer;
    std::vector<const uint16_t*> from, to;
    for (int64_t begin = 0; begin < blocks; begin += some) {
      for (const Item& item : shares[thread]) {
        from.clear(), to.clear();
        for (int64_t block = begin; block < std::min(begin + some, blocks); ++block) {
          for (int64_t pair = starts[block * taps + item.tap]; pair < starts[block * taps + item.tap + 1]; ++pair) {
            from.push_back(source + int64_t(rows[pair]) * inner + item.first);
            to.push_back(target + (block * block_rows + places[pair]) * width);
          }
        }
        if (from.empty()) continue;
        const int64_t steps = (from.size() + kTileDepth - 1) / kTileDepth;
        from.resize(steps * kTileDepth, nullptr), to.resize(steps * kTileDepth, nullptr);
        const int own = item.last - item.first, chunks = (own + kTileDepth - 1) / kTileDepth;
        const size_t wanted = steps * (2 * chunks + width / 16) * kTile + 32;
        if (buffer.size() < wanted) buffer.resize(wanted);
        uint16_t* x = buffer.data();
        x += (64 - (reinterpret_cast<uintptr_t>(x) & 63)) % 64 / 2;
        uint16_t* y = x + steps * 2 * chunks * kTile;
        for (int64_t step = 0; step < steps; ++step) {
          const uint16_t** these = from.data() + step * kTileDepth;
          for (int chunk = 0; chunk < chunks; ++chunk) {
            uint16_t* first = x + (2 * chunk * steps + step) * kTile;
            tiles.left(these, own - chunk * kTileDepth, first, first + steps * kTile);
            for (int r = 0; r < kTileDepth; ++r)
              if (these[r]) these[r] += kTileDepth;
          }
          OuterTiles::right(to.data() + step * kTileDepth, width, y + step * kTile, steps * kTile);
        }
        tiles.add(x, y, steps, own, width, total + (int64_t(item.tap) * inner + item.first) * width);
      }
    }
  }
}
#endif

}  // namespace

extern "C" {

// `width` is a multiple of xm_lanes(); `total` (K x inner x width) is added to.
void xm_outer_float(const float* source, int inner, const float* target, int width, const int64_t* starts,
                    const int32_t* rows, const uint16_t* places, int64_t targets, int taps, int block_rows,
                    float* total, int threads) {
  const Panels panels(width);
  const auto work = [&](const Item& item, int64_t first, int64_t from, int64_t count, std::vector<uint16_t>&) {
    for (int panel = 0; panel < panels.count; ++panel) {
      const int begin = panels.first(panel) * kLanes;
      float* to = total + int64_t(item.tap) * inner * width + begin;
      XM_DISPATCH_VECTORS(panels.size(panel),
                          (outer_rows<tile_rows(NV), NV>(source, inner, rows + from, target + first * width + begin,
                                                         width, places + from, count, to, item.first, item.last)));
    }
  };
  for_own_items(starts, targets, taps, block_rows, inner, threads, work);
}

#ifdef XM_BF16
void xm_outer_bf16(const uint16_t* source, int inner, const uint16_t* target, int width, const int64_t* starts,
                   const int32_t* rows, const uint16_t* places, int64_t targets, int taps, int block_rows,
                   float* total, int threads) {
#ifdef XM_TILES
  if (in_tiles(inner))
    return outer_in_tiles(source, inner, target, width, starts, rows, places, targets, taps, block_rows, total,
                          threads);
#endif
  const Panels panels(width);
  const auto work = [&](const Item& item, int64_t first, int64_t from, int64_t count, std::vector<uint16_t>& buffer) {
    const int own = item.last - item.first;
    const int64_t steps = (count + 1) / 2, source_step = (2 * own + 31) / 32 * 32, target_step = 2 * width;
    if (buffer.size() < size_t(steps * (source_step + target_step)) + 32)
      buffer.resize(steps * (source_step + target_step) + 32);
    uint16_t* y = buffer.data();
    y += (64 - (reinterpret_cast<uintptr_t>(y) & 63)) % 64 / 2;
    uint16_t* x = y + steps * target_step;
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t pair = from + 2 * step, other = pair + 1;
      const bool two = 2 * step + 1 < count;
      const uint16_t* start = source + item.first;
      interleave(start + int64_t(rows[pair]) * inner, two ? start + int64_t(rows[other]) * inner : nullptr, own,
                 x + step * source_step);
      interleave(target + (first + places[pair]) * width, two ? target + (first + places[other]) * width : nullptr,
                 width, y + step * target_step);
    }
    for (int panel = 0; panel < panels.count; ++panel) {
      const int begin = panels.first(panel) * kLanes;
      float* to = total + (int64_t(item.tap) * inner + item.first) * width + begin;
      XM_DISPATCH_VECTORS(panels.size(panel), (outer_rows_bf16<tile_rows(NV), NV>(x, source_step, y + 2 * begin, target_step,
                                                                                 steps, to, width, own)));
    }
  };
  for_own_items(starts, targets, taps, block_rows, inner, threads, work);
}
#endif

}  // extern "C"
