//go:build tools

// Package tools names the daemon that is built, so that go.mod requires its version and go.sum pins what it is made of.
package tools

import _ "github.com/ipfs/kubo/cmd/ipfs"
