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

/* Digits of a whole number, most significant first. Returns how many. */
static int write_whole(uint64_t value, char *out) {
  char reversed[24];
  int n = 0;
  do reversed[n++] = (char)('0' + value % 10);
  while ((value /= 10) != 0);
  for (int i = 0; i < n; i++) out[i] = reversed[n - 1 - i];
  return n;
}

int number_int(int64_t value, char out[24]) {
  uint64_t size = value < 0 ? -(uint64_t)value : (uint64_t)value;
  out[0] = '-';
  int n = (value < 0) + write_whole(size, out + (value < 0));
  out[n] = '\0';
  return n;
}

static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};

/* digits / 10^places without trailing zeros, as %g writes it. */
static int write_places(uint64_t digits, int places, bool negative, char *out) {
  char text[24];
  while (places > 0 && digits % 10 == 0) digits /= 10, places--;
  int n = write_whole(digits, text), at = 0;
  if (negative) out[at++] = '-';
  if (n <= places) { /* below one */
    out[at++] = '0';
    out[at++] = '.';
    for (int i = n; i < places; i++) out[at++] = '0';
  }
  for (int i = 0; i < n; i++) {
    if (i == n - places && i) out[at++] = '.';
    out[at++] = text[i];
  }
  out[at] = '\0';
  return at;
}

/* The shortest decimal of a size from 1e-4 to below 1e6, where no exponent is written; 0 when it cannot be told here. All
 * in double, which has 29 bits more than what is printed: size x 10^places, at most 2^30, is
 * off by less than 2e-7, so only what lies that close to the middle between two decimals or two floats is left to the
 * exact way. */
static int short_f32(float size, bool negative, char *out) {
  double value = (double)size, low = ((double)nextafterf(size, 0) + value) / 2,
         high = ((double)nextafterf(size, INFINITY) + value) / 2;
  int whole = 1; /* digits before the point; 0 and less: 1 - zeros behind it */
  while (value >= tens[whole]) whole++;
  for (double edge = 1; value < edge; edge = 1 / tens[1 - whole]) whole--;
  for (int digits = FLT_DIG; digits <= 9; digits++) {
    int places = digits - whole;
    double scaled = value * tens[places], rounded = floor(scaled + 0.5), back = rounded / tens[places];
    if (fabs(scaled - floor(scaled) - 0.5) < 1e-6 || rounded >= tens[digits]) return 0;
    double margin = value * 1e-15;
    if (back > low + margin && back < high - margin) return write_places((uint64_t)rounded, places, negative, out);
    if (back > low - margin && back < high + margin) return 0;
  }
  return 0;
}

/* Up to FLT_DIG (DBL_DIG) significant digits every decimal survives the way into binary and back, so %g
 * with that precision, which drops trailing zeros, already prints the shortest such text; only longer ones
 * must be tried one by one. Subnormals have fewer digits, so they are tried from one. */
int number_f32(float value, char out[24]) {
  float size = fabsf(value);
  int from = size < FLT_MIN ? 1 : FLT_DIG;
  int n = 0;
  if (size == 0) return write_places(0, 0, signbit(value), out);
  if (size >= 1e-4f && size < 1e6f && (n = short_f32(size, value < 0, out)) > 0) return n;
  for (int digits = from; digits <= 9; digits++) {
    n = snprintf(out, 24, "%.*g", digits, (double)value);
    if (strtof(out, NULL) == value) break;
  }
  return trim_exponent(out, n);
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
