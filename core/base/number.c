#include "core/base/number.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The daemon never calls setlocale, so printf and strtod use the C locale. */

/* "1e-05" -> "1e-5", "1e+06" -> "1e+6": printf pads exponents to two digits. */
static int trim_exponent(char *text, int length) {
  char *e = strchr(text, 'e');
  if (!e) return length;
  char *digits = e + 2, *p = digits;
  while (*p == '0' && p[1]) p++;
  memmove(digits, p, strlen(p) + 1);
  return (int)strlen(text);
}

static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12}; /* all exact */

/* digits / 10^places in plain notation, without trailing zeros. */
static int print_fixed(bool negative, uint64_t digits, int places, char *out) {
  char reversed[24], *p = out;
  int n = 0, last = 0;
  for (; digits > 0 || n <= places; digits /= 10) reversed[n++] = (char)('0' + digits % 10);
  while (last < places && reversed[last] == '0') last++;
  if (negative) *p++ = '-';
  for (int i = n - 1; i >= last; i--) {
    *p++ = reversed[i];
    if (i == places && i > last) *p++ = '.';
  }
  *p = '\0';
  return (int)(p - out);
}

/* number_f32 for 1e-4 <= |value| < 1e5, where most numbers of a reply lie, without the C library's exact but slow ways.
 * 0 where rounding in double could hide on which side of a tie the exact value is. */
static int quick_f32(float value, char *out) {
  double a = fabs((double)value);
  if (!(a >= 1e-4 && a < 1e5)) return 0;
  int exponent = a >= 1 ? 0 : -4; /* 10^exponent <= a < 10^(exponent + 1) */
  while (exponent < 0 ? a * powers[-exponent - 1] >= 1 : a >= powers[exponent + 1]) exponent++;
  for (int digits = FLT_DIG; digits <= 9; digits++) {
    int places = digits - 1 - exponent;
    double scaled = a * powers[places], whole = floor(scaled), part = scaled - whole;
    if (fabs(part - 0.5) < 1e-6) return 0; /* the product is off by 1e-7 at most */
    whole += part > 0.5;
    double back = whole / powers[places]; /* the double nearest to the decimal */
    uint64_t bits;
    memcpy(&bits, &back, sizeof bits);
    if ((bits & 0x1FFFFFFF) == 0x10000000) return 0; /* halfway between two floats */
    if ((float)back == (float)a) return print_fixed(value < 0, (uint64_t)whole, places, out);
  }
  return 0;
}

/* Up to FLT_DIG (DBL_DIG) significant digits every decimal survives the way into binary and back, so %g
 * with that precision, which drops trailing zeros, already prints the shortest such text; only longer ones
 * must be tried one by one. Subnormals have fewer digits, so they are tried from one. */
int number_f32(float value, char out[24]) {
  if (value == 0) return snprintf(out, 24, "%s", signbit(value) ? "-0" : "0");
  int n = quick_f32(value, out);
  if (n) return n;
  int from = fabsf(value) < FLT_MIN ? 1 : FLT_DIG;
  for (int digits = from; digits <= 9; digits++) {
    n = snprintf(out, 24, "%.*g", digits, (double)value);
    if (strtof(out, NULL) == value) break;
  }
  return trim_exponent(out, n);
}

int number_int(int64_t value, char out[24]) {
  char reversed[24];
  uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;
  int n = 0, at = 0;
  do reversed[n++] = (char)('0' + size % 10);
  while ((size /= 10) != 0);
  if (value < 0) out[at++] = '-';
  while (n > 0) out[at++] = reversed[--n];
  out[at] = '\0';
  return at;
}

int number_f64(double value, char out[32]) {
  int from = fabs(value) < DBL_MIN ? 1 : DBL_DIG;
  int n = 0;
  for (int digits = from; digits <= 17; digits++) {
    n = snprintf(out, 32, "%.*g", digits, value);
    if (strtod(out, NULL) == value) break;
  }
  return trim_exponent(out, n);
}

bool number_parse_int(const char *text, int64_t *out) {
  const char *p = text + (*text == '-' || *text == '+');
  if (*p < '0' || *p > '9') return false;
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno || *end) return false;
  *out = value;
  return true;
}

bool number_parse_double(const char *text, double *out) {
  if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end || !isfinite(value)) return false;
  *out = value;
  return true;
}
