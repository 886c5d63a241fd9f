// Multi-scale deformable attention: out[n] = sum over levels and points of weight * value at a place between cells.
//
// Values are B x M x heads x size, the levels one after the other along M, each row by row; what a place takes from
// its four cells is bilinear, and nothing from cells outside of the level. `size` is a multiple of 8.
#include <cmath>
#include <cstdint>

namespace {

typedef float Vec8 __attribute__((vector_size(32)));
typedef float Vec8Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

inline Vec8 load8(const float* from) { return *reinterpret_cast<const Vec8Unaligned*>(from); }
inline void store8(float* to, Vec8 value) { *reinterpret_cast<Vec8Unaligned*>(to) = value; }
inline float sum8(Vec8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

struct Shape {
  int batch, queries, memory, heads, levels, points;
  const int32_t* extents;  // height and width of each level
};

// Where a place lies: its upper left cell and how far beyond it is.
struct Place {
  int left, top, width, height;
  float right_share, lower_share;
  bool outside, unknown;

  Place(const float* reference, const float* offset, int height_, int width_) : width(width_), height(height_) {
    const float x = reference[0] * width + offset[0] - 0.5f, y = reference[1] * height + offset[1] - 0.5f;
    unknown = std::isnan(x) || std::isnan(y);
    outside = !(x > -1 && y > -1 && x < width && y < height);
    if (outside) return;
    const float x0 = std::floor(x), y0 = std::floor(y);
    left = int(x0), top = int(y0), right_share = x - x0, lower_share = y - y0;
  }
  bool has(int corner) const {
    const int column = left + (corner & 1), row = top + (corner >> 1);
    return column >= 0 && row >= 0 && column < width && row < height;
  }
  int cell(int corner) const { return (top + (corner >> 1)) * width + left + (corner & 1); }
  float share(int corner) const {
    return (corner & 1 ? right_share : 1 - right_share) * (corner >> 1 ? lower_share : 1 - lower_share);
  }
};

template <int C>
void forward(const Shape& s, const float* values, const float* offsets, const float* weights, const float* reference,
             float* out, int threads) {
  const int64_t row = int64_t(s.heads) * C * 8, places = int64_t(s.levels) * s.points;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (int b = 0; b < s.batch; ++b) {
    for (int n = 0; n < s.queries; ++n) {
      for (int h = 0; h < s.heads; ++h) {
        const int64_t query = (int64_t(b) * s.queries + n) * s.heads + h;
        const float *offset = offsets + query * places * 2, *weight = weights + query * places;
        const float* level = values + int64_t(b) * s.memory * row + h * C * 8;
        Vec8 sum[C] = {};
        for (int l = 0; l < s.levels; ++l) {
          const int height = s.extents[2 * l], width = s.extents[2 * l + 1];
          for (int p = 0; p < s.points; ++p, offset += 2, ++weight) {
            const Place place(reference + 2 * n, offset, height, width);
            if (place.unknown) sum[0] += Vec8{} + NAN;
            if (place.outside) continue;
            for (int corner = 0; corner < 4; ++corner) {
              if (!place.has(corner)) continue;
              const float* value = level + place.cell(corner) * row;
              const Vec8 factor = Vec8{} + *weight * place.share(corner);
              for (int c = 0; c < C; ++c) sum[c] += factor * load8(value + 8 * c);
            }
          }
          level += int64_t(height) * width * row;
        }
        for (int c = 0; c < C; ++c) store8(out + query * C * 8 + 8 * c, sum[c]);
      }
    }
  }
}

// A thread owns a head of a sample, so that no two threads add to the same number.
template <int C>
void backward(const Shape& s, const float* values, const float* offsets, const float* weights, const float* reference,
              const float* gradient, float* for_values, float* for_offsets, float* for_weights, int threads) {
  const int64_t row = int64_t(s.heads) * C * 8, places = int64_t(s.levels) * s.points;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) collapse(2)
  for (int b = 0; b < s.batch; ++b) {
    for (int h = 0; h < s.heads; ++h) {
      for (int n = 0; n < s.queries; ++n) {
        const int64_t query = (int64_t(b) * s.queries + n) * s.heads + h;
        int64_t index = query * places;
        int64_t first = int64_t(b) * s.memory * row + h * C * 8;
        Vec8 own[C];
        for (int c = 0; c < C; ++c) own[c] = load8(gradient + query * C * 8 + 8 * c);
        for (int l = 0; l < s.levels; ++l) {
          const int height = s.extents[2 * l], width = s.extents[2 * l + 1];
          for (int p = 0; p < s.points; ++p, ++index) {
            const Place place(reference + 2 * n, offsets + 2 * index, height, width);
            Vec8 by_weight = {}, by_x = {}, by_y = {};
            for (int corner = 0; corner < 4 && !place.outside; ++corner) {
              if (!place.has(corner)) continue;
              const int64_t cell = first + place.cell(corner) * row;
              const float share = place.share(corner);
              const Vec8 factor = Vec8{} + weights[index] * share;
              Vec8 dot = {};
              for (int c = 0; c < C; ++c) {
                float* to = for_values + cell + 8 * c;
                store8(to, load8(to) + factor * own[c]);
                dot += own[c] * load8(values + cell + 8 * c);
              }
              const float upwards = corner >> 1 ? place.lower_share : 1 - place.lower_share;
              const float sideways = corner & 1 ? place.right_share : 1 - place.right_share;
              by_weight += share * dot;
              by_x += (corner & 1 ? upwards : -upwards) * dot;
              by_y += (corner >> 1 ? sideways : -sideways) * dot;
            }
            for_weights[index] = sum8(by_weight);
            for_offsets[2 * index] = weights[index] * sum8(by_x);
            for_offsets[2 * index + 1] = weights[index] * sum8(by_y);
          }
          first += int64_t(height) * width * row;
        }
      }
    }
  }
}

}  // namespace

// Call `BODY` with the constant C that is a head's size in eights.
#define XM_DISPATCH_EIGHTS(eights, BODY)       \
  switch (eights) {                            \
    case 1: { constexpr int C = 1; BODY; break; } \
    case 2: { constexpr int C = 2; BODY; break; } \
    case 3: { constexpr int C = 3; BODY; break; } \
    case 4: { constexpr int C = 4; BODY; break; } \
    case 6: { constexpr int C = 6; BODY; break; } \
    case 8: { constexpr int C = 8; BODY; break; } \
    default: return 0;                         \
  }

extern "C" {

// Offsets (B x queries x heads x levels x points x 2, x before y) are in cells of their level, from the query's
// reference (queries x 2 in [0, 1]). Returns 0, having done nothing, for a size that is not compiled.
int xm_deformable(const float* values, const float* offsets, const float* weights, const float* reference,
                  const int32_t* extents, int batch, int queries, int memory, int heads, int levels, int points,
                  int size, float* out, int threads) {
  const Shape shape{batch, queries, memory, heads, levels, points, extents};
  XM_DISPATCH_EIGHTS(size / 8, (forward<C>(shape, values, offsets, weights, reference, out, threads)));
  return 1;
}

// `for_values` is added to; the other two are written.
int xm_deformable_backward(const float* values, const float* offsets, const float* weights, const float* reference,
                           const int32_t* extents, int batch, int queries, int memory, int heads, int levels,
                           int points, int size, const float* gradient, float* for_values, float* for_offsets,
                           float* for_weights, int threads) {
  const Shape shape{batch, queries, memory, heads, levels, points, extents};
  XM_DISPATCH_EIGHTS(size / 8, (backward<C>(shape, values, offsets, weights, reference, gradient, for_values,
                                            for_offsets, for_weights, threads)));
  return 1;
}

}  // extern "C"
