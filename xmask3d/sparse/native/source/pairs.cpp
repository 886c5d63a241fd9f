// The pairs (target row, source row) of a kernel map as lists, block by block of target rows and tap by tap.
#include <algorithm>
#include <vector>

#include "vectors.h"

extern "C" {

// How many pairs each tap has in each block: blocks x K counts of a T x K table whose missing entries are `none`.
void xm_count_pairs(const int32_t* table, int64_t targets, int taps, int32_t none, int block_rows, int64_t* counts,
                    int threads) {
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    std::vector<int32_t> own(taps, 0);
    const int64_t last = std::min(targets, (block + 1) * block_rows);
    for (int64_t row = block * block_rows; row < last; ++row)
      for (int tap = 0; tap < taps; ++tap) own[tap] += table[row * taps + tap] != none;
    std::copy(own.begin(), own.end(), counts + block * taps);
  }
}

// Source row and place in the block of every pair; `starts` has the sums of the counts.
void xm_list_pairs(const int32_t* table, int64_t targets, int taps, int32_t none, int block_rows, const int64_t* starts,
                   int32_t* rows, uint16_t* places, int threads) {
  const int64_t blocks = (targets + block_rows - 1) / block_rows;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    std::vector<int64_t> next(starts + block * taps, starts + (block + 1) * taps);
    const int64_t first = block * block_rows, last = std::min(targets, first + block_rows);
    for (int64_t row = first; row < last; ++row)
      for (int tap = 0; tap < taps; ++tap)
        if (const int32_t source = table[row * taps + tap]; source != none) {
          rows[next[tap]] = source;
          places[next[tap]++] = uint16_t(row - first);
        }
  }
}

}  // extern "C"
