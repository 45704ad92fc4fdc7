// Package edge sends the router what no honest client sends, over TCP to the public listener of a whole process.
//
// Its vectors are raw bytes with the answer that each must get; its mutations are damaged requests by the thousand; h2spec judges HTTP/2.
// The backend behind the router counts what reaches it: nothing does unless a vector says so.
package edge
