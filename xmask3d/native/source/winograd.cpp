// Winograd's minimal filtering F(4x4, 3x3) (arXiv 1509.09308): what surrounds the matrix products of a convolution.
//
// A tile is 4 x 4 outputs of 6 x 6 inputs. In both directions 6 inputs d become B^T d, 3 weights g become G g, and the
// 6 products m become A^T m, with the interpolation points 0, 1, -1, 2, -2 and infinity. The caller multiplies: for
// each of the 36 places of a tile, weights (C' x C) times maps (C x tiles). Tiles lie row by row.
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// Phases of a row of `width` numbers that begins with a zero of padding: to[k * stride + j] = row[4 * j + k - 1].
void split(const float* __restrict row, int width, int tiles, float* __restrict to, int stride) {
  float *p0 = to, *p1 = to + stride, *p2 = to + 2 * stride, *p3 = to + 3 * stride;
  const int whole = width / 4;
  p0[0] = 0;
#pragma GCC ivdep
  for (int j = 0; j < whole; ++j) {
    p1[j] = row[4 * j], p2[j] = row[4 * j + 1], p3[j] = row[4 * j + 2], p0[j + 1] = row[4 * j + 3];
  }
  for (int j = whole; j <= tiles; ++j) {
    const auto at = [&](int x) { return x < width ? row[x] : 0.0f; };
    p1[j] = at(4 * j), p2[j] = at(4 * j + 1), p3[j] = at(4 * j + 2);
    if (j < tiles) p0[j + 1] = at(4 * j + 3);
  }
}

// B^T d for `count` columns; the six inputs, and the six outputs, each `from` and `to` numbers apart.
inline void enter(const float* const d[6], float* const t[6], int count) {
  const float *d0 = d[0], *d1 = d[1], *d2 = d[2], *d3 = d[3], *d4 = d[4], *d5 = d[5];
  float *t0 = t[0], *t1 = t[1], *t2 = t[2], *t3 = t[3], *t4 = t[4], *t5 = t[5];
#pragma GCC ivdep
  for (int k = 0; k < count; ++k) {
    const float a = d4[k] - 4 * d2[k], b = d3[k] - 4 * d1[k], e = d4[k] - d2[k], f = 2 * (d3[k] - d1[k]);
    t0[k] = 4 * d0[k] - 5 * d2[k] + d4[k];
    t1[k] = a + b, t2[k] = a - b, t3[k] = e + f, t4[k] = e - f;
    t5[k] = 4 * d1[k] - 5 * d3[k] + d5[k];
  }
}

}  // namespace

// Maps (channels x height x width, planes and lines apart as told) to 36 x channels x tiles, for `tile_rows` rows of
// tiles of which the first takes its first input from line `top`; zeros surround the map.
extern "C" void xm_winograd_enter(const float* maps, int64_t plane, int64_t line, int channels, int height, int width,
                                  int top, int tile_rows, float* out, int threads) {
  const int tiles = (width + 3) / 4, stride = (tiles + 16) / 16 * 16, row = 4 * stride;
  const int64_t step = int64_t(channels) * tile_rows * tiles;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int c = 0; c < channels; ++c) {
    std::vector<float> space(size_t(row) * 12);
    float *lines[6], *mixed[6];
    for (int i = 0; i < 6; ++i) lines[i] = space.data() + i * row, mixed[i] = space.data() + (6 + i) * row;
    for (int r = 0; r < tile_rows; ++r) {
      for (int i = 0; i < 6; ++i) {
        const int y = top + 4 * r + i;
        if (r && i < 2) {
          memcpy(lines[i], lines[i + 4], sizeof(float) * row);
        } else if (y < 0 || y >= height) {
          memset(lines[i], 0, sizeof(float) * row);
        } else {
          split(maps + c * plane + y * line, width, tiles, lines[i], stride);
        }
      }
      enter(lines, mixed, row);
      for (int i = 0; i < 6; ++i) {
        const float* m = mixed[i];
        const float* const columns[6] = {m, m + stride, m + 2 * stride, m + 3 * stride, m + 1, m + stride + 1};
        float* places[6];
        for (int k = 0; k < 6; ++k) places[k] = out + (6 * i + k) * step + (int64_t(c) * tile_rows + r) * tiles;
        enter(columns, places, tiles);
      }
    }
  }
}

// 36 x channels x tiles to maps of `height` lines, channels x height x width, plus `bias` where there is one.
extern "C" void xm_winograd_leave(const float* products, const float* bias, int channels, int height, int width,
                                  int tile_rows, float* maps, int64_t plane, int64_t line, int threads) {
  const int tiles = (width + 3) / 4;
  const int64_t step = int64_t(channels) * tile_rows * tiles;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int c = 0; c < channels; ++c) {
    std::vector<float> space(size_t(tiles) * 28);
    float *const mixed = space.data(), *const last = mixed + 24 * tiles;
    const float shift = bias ? bias[c] : 0;
    for (int r = 0; r < tile_rows; ++r) {
      for (int k = 0; k < 6; ++k) {
        const float* m0 = products + k * step + (int64_t(c) * tile_rows + r) * tiles;
        const float *m1 = m0 + 6 * step, *m2 = m0 + 12 * step, *m3 = m0 + 18 * step, *m4 = m0 + 24 * step;
        const float* m5 = m0 + 30 * step;
        float *t0 = mixed + k * tiles, *t1 = t0 + 6 * tiles, *t2 = t0 + 12 * tiles, *t3 = t0 + 18 * tiles;
#pragma GCC ivdep
        for (int j = 0; j < tiles; ++j) {
          const float s = m1[j] + m2[j], e = m1[j] - m2[j], u = m3[j] + m4[j], w = m3[j] - m4[j];
          t0[j] = m0[j] + s + u, t1[j] = e + 2 * w, t2[j] = s + 4 * u, t3[j] = e + 8 * w + m5[j];
        }
      }
      for (int i = 0; i < 4 && 4 * r + i < height; ++i) {
        const float *q0 = mixed + 6 * i * tiles, *q1 = q0 + tiles, *q2 = q1 + tiles, *q3 = q2 + tiles, *q4 = q3 + tiles;
        const float* q5 = q4 + tiles;
        float* const to = maps + c * plane + (4 * r + i) * line;
        float* const o = width % 4 ? last : to;
#pragma GCC ivdep
        for (int j = 0; j < tiles; ++j) {
          const float s = q1[j] + q2[j], e = q1[j] - q2[j], u = q3[j] + q4[j], w = q3[j] - q4[j];
          o[4 * j] = q0[j] + s + u + shift, o[4 * j + 1] = e + 2 * w + shift;
          o[4 * j + 2] = s + 4 * u + shift, o[4 * j + 3] = e + 8 * w + q5[j] + shift;
        }
        if (o == last) memcpy(to, last, sizeof(float) * width);
      }
    }
  }
}
