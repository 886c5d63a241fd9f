// total[k] = sum over the pairs (t, s) of tap k of the outer product of source[s] and target[t].
//
// A thread owns some taps (or parts of their rows) and walks through all blocks, so that no two threads add to the same
// number and the order of every sum is that of the pairs, whatever the number of threads.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "vectors.h"

namespace {

struct Item {
  int tap, first, last;  // rows [first, last) of total[tap]
  int64_t cost;
};

// Shares of about equal cost: the costliest item goes to the thread that has least.
std::vector<std::vector<Item>> share(const int64_t* starts, int64_t blocks, int taps, int inner, int threads) {
  const int parts = std::max(1, std::min((4 * threads + taps - 1) / taps, inner / 32));
  std::vector<Item> items;
  for (int tap = 0; tap < taps; ++tap) {
    int64_t pairs = 0;
    for (int64_t block = 0; block < blocks; ++block)
      pairs += starts[block * taps + tap + 1] - starts[block * taps + tap];
    for (int part = 0; part < parts; ++part) {
      const int first = inner * part / parts;
      const int last = inner * (part + 1) / parts;
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


}  // namespace

extern "C" {

// `width` is a multiple of xm_lanes(); `total` (K x inner x width) is added to.
void xm_weight_gradient(const float* source, int inner, const float* target, int width, const int64_t* starts,
                        const int32_t* rows, const uint16_t* places, int64_t targets, int taps, int block_rows,
                        float* total, int threads) {
  const Panels panels(width);
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
  const auto shares = share(starts, blocks, taps, inner, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    for (int64_t block = 0; block < blocks; ++block) {
      const float* own_target = target + block * block_rows * width;
      for (const Item& item : shares[thread]) {
        const int64_t from = starts[block * taps + item.tap], count = starts[block * taps + item.tap + 1] - from;
        if (!count) continue;
        for (int panel = 0; panel < panels.count; ++panel) {
          const int begin = panels.first(panel) * kLanes;
          float* to = total + int64_t(item.tap) * inner * width + begin;
          XM_DISPATCH_VECTORS(panels.size(panel),
                              (outer_rows<tile_rows(NV), NV>(source, inner, rows + from, own_target + begin, width,
                                                             places + from, count, to, item.first, item.last)));
        }
      }
    }
  }
}

}  // extern "C"
