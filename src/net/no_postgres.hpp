// Last include of every .cpp in src/net: this layer knows libuv and OpenSSL, but not the server.
// No include guard: it must look each time.
#ifdef POSTGRES_H
#error "this layer must not include postgres.h: only src/postgres does"
#endif
