// tonnetwork is as much of a TON network as two storage daemons need to find each other, on the loopback interface
// alone: nodes of the distributed hash table (DHT), which know only each other, and a liteserver that takes connections
// and answers no query. A daemon that is given the configuration of this network asks nobody else.
//
//	tonnetwork run -dht 30300,30301,30302 -lite 30303 -out global.config.json
//	tonnetwork daemon-config -listen 127.0.0.1:30310 -downloads DIR -out config.json
//
// `run` writes the network's global configuration once every node listens, and then waits to be killed. Its keys are
// derived from the ports, so that a network that is started again on the same ports is the same network to those that
// have its configuration; what its table held is gone, and comes back as the daemons announce themselves again.
//
// `daemon-config` writes the configuration of a tonutils-storage with a key of its own. It has to be there before the
// daemon's first start: one without a configuration asks a host on the Internet for its own address.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/xssnick/tonutils-go/adnl"
	"github.com/xssnick/tonutils-go/adnl/address"
	"github.com/xssnick/tonutils-go/adnl/dht"
	"github.com/xssnick/tonutils-go/adnl/keys"
	"github.com/xssnick/tonutils-go/liteclient"
)

// All that anything here listens on.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// No network id is part of what is signed, since the daemon knows of none.
const noNetworkID = -1

func main() {
	commands := map[string]func([]string) error{"run": run, "daemon-config": daemonConfig}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fail(fmt.Errorf("usage: tonnetwork run|daemon-config [flags]"))
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tonnetwork:", err)
	os.Exit(1)
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	ports := flags.String("dht", "30300,30301,30302", "UDP ports of the DHT's nodes")
	litePort := flags.Uint("lite", 30303, "TCP port of the liteserver")
	out := flags.String("out", "global.config.json", "where the network's configuration goes")
	_ = flags.Parse(arguments)

	var nodes []*node
	for _, text := range strings.Split(*ports, ",") {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("-dht: %q is no port", text)
		}
		made, err := listen(uint16(port))
		if err != nil {
			return fmt.Errorf("DHT node on port %d: %w", port, err)
		}
		nodes = append(nodes, made)
	}
	for index, one := range nodes {
		if _, err := dht.NewServer(one.gateway, one.key, allBut(nodes, index), nil); err != nil {
			return fmt.Errorf("DHT node %d: %w", index, err)
		}
	}

	liteKey := keyOf("liteserver", uint16(*litePort))
	lite := liteclient.NewServer([]ed25519.PrivateKey{liteKey})
	ended := make(chan error, 1)
	go func() { ended <- lite.Listen(netip.AddrPortFrom(loopback, uint16(*litePort)).String()) }()

	if err := writeWhole(*out, globalConfig(nodes, uint16(*litePort), liteKey)); err != nil {
		return err
	}
	return <-ended
}

// One node of the DHT.
type node struct {
	port    uint16
	key     ed25519.PrivateKey
	gateway *adnl.Gateway
	signed  *dht.Node
}

// Listens on a port, and signs where that is.
func listen(port uint16) (*node, error) {
	at, err := address.NewAddress(loopback.AsSlice(), int32(port))
	if err != nil {
		return nil, err
	}
	key := keyOf("dht", port)
	gateway := adnl.NewGateway(key)
	gateway.SetAddressList([]address.Address{at})
	if err := gateway.StartServer(netip.AddrPortFrom(loopback, port).String()); err != nil {
		return nil, err
	}
	list := gateway.GetAddressList()
	id := keys.PublicKeyED25519{Key: key.Public().(ed25519.PublicKey)}
	signed, err := dht.BuildSignedNode(id, &list, int32(time.Now().Unix()), noNetworkID, key)
	return &node{port, key, gateway, signed}, err
}

func allBut(nodes []*node, self int) []*dht.Node {
	var others []*dht.Node
	for index, one := range nodes {
		if index != self {
			others = append(others, one.signed)
		}
	}
	return others
}

func globalConfig(nodes []*node, litePort uint16, liteKey ed25519.PrivateKey) liteclient.GlobalConfig {
	raw := loopback.As4()
	// As signed 32 bits, in which form the public networks' files have addresses too.
	ip := int32(binary.BigEndian.Uint32(raw[:]))
	config := liteclient.GlobalConfig{
		Type: "config.global",
		DHT: liteclient.DHTConfig{Type: "dht.config.global", K: 6, A: 3,
			StaticNodes: liteclient.DHTNodes{Type: "dht.nodes"}},
		Liteservers: []liteclient.LiteserverConfig{{IP: int64(ip), Port: int(litePort), ID: publicKey(liteKey)}},
	}
	for _, one := range nodes {
		list := one.signed.AddrList
		config.DHT.StaticNodes.Nodes = append(config.DHT.StaticNodes.Nodes, liteclient.DHTNode{
			Type: "dht.node",
			ID:   publicKey(one.key),
			AddrList: liteclient.DHTAddressList{
				Type:       "adnl.addressList",
				Addrs:      []liteclient.DHTAddress{{Type: "adnl.address.udp", IP: int(ip), Port: int(one.port)}},
				Version:    int(list.Version),
				ReinitDate: int(list.ReinitDate),
				Priority:   int(list.Priority),
				ExpireAt:   int(list.ExpireAt),
			},
			Version:   int(one.signed.Version),
			Signature: base64.StdEncoding.EncodeToString(one.signed.Signature),
		})
	}
	return config
}

func publicKey(key ed25519.PrivateKey) liteclient.ServerID {
	public := key.Public().(ed25519.PublicKey)
	return liteclient.ServerID{Type: "pub.ed25519", Key: base64.StdEncoding.EncodeToString(public)}
}

// A key for a port. It protects nothing: the network is this machine's own.
func keyOf(role string, port uint16) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(fmt.Sprintf("tidelock test network: %s %d", role, port)))
	return ed25519.NewKeyFromSeed(seed[:])
}

func daemonConfig(arguments []string) error {
	flags := flag.NewFlagSet("daemon-config", flag.ExitOnError)
	at := flags.String("listen", "127.0.0.1:30310", "UDP address of the daemon")
	downloads := flags.String("downloads", "downloads", "where it puts what it fetches, unless it is told")
	out := flags.String("out", "config.json", "where the configuration goes")
	_ = flags.Parse(arguments)

	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	return writeWhole(*out, map[string]any{
		"Version":          1,
		"Key":              key,
		"ListenAddr":       *at,
		"ExternalIP":       loopback.String(),
		"DownloadsPath":    *downloads,
		"NetworkConfigUrl": "",
		"TunnelConfig":     nil,
	})
}

// Under another name first: whoever waits for the file never reads half of it.
func writeWhole(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".partial", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".partial", path)
}
