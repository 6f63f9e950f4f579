// Package demo is the inside of the built-in image "demo": a project of two apps that are whisk itself, so that
// a first look needs neither a network nor an image.
//
//	browser ── 127.0.0.1:8080 ──▶ web ── http://store:8080 ──▶ store ── /data/visits.json (volume)
//	                               │                             │
//	                               └──── what /proc says of its sandbox, of either
//
// Project describes the two apps; Run is what whisk does as their process. It is given nothing but its arguments,
// two environment variables and a folder, as any app in a sandbox is, and knows no other room but config.
//
// The page is put together by hand instead of with html/template: that package would add 2.6 MB to the binary
// (its reflection keeps the linker from dropping methods) and 0.3 ms to every start of every sandbox. Escaping is
// kept by a type instead; see markup.
package demo
