// SPDX-License-Identifier: EUPL-1.2

// Command probe is what the test cluster's own pods run: the pause container of every pod, an echo, and questions to the network.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	words := os.Args[1:]
	if len(words) == 0 {
		words = []string{"pause"}
	}
	var err error
	switch {
	case words[0] == "pause" && len(words) == 1:
		pause()
	case words[0] == "echo" && len(words) == 2:
		err = echo(words[1])
	case words[0] == "resolve" && len(words) == 2:
		err = resolve(words[1])
	case words[0] == "ask" && len(words) == 4:
		err = ask(words[1], words[2], words[3])
	default:
		err = fmt.Errorf("say: pause | echo PORT | resolve NAME | ask udp|tcp HOST:PORT TEXT")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pause holds a pod's namespaces and reaps what ends in its process namespace.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for sent := range signals {
		if sent != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// echo answers datagrams and lines on a port with the pod's name in front.
func echo(port string) error {
	name, _ := os.Hostname()
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				buffer := make([]byte, 1500)
				if count, err := connection.Read(buffer); err == nil {
					fmt.Fprintf(connection, "%s %s", name, buffer[:count])
				}
			}()
		}
	}()
	datagrams, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		buffer := make([]byte, 1500)
		for {
			count, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo(fmt.Appendf(nil, "%s %s", name, buffer[:count]), from)
		}
	}()
	pause()
	return nil
}

// resolve prints a name's addresses, one a line.
func resolve(name string) error {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

// ask sends a text and prints the answer.
func ask(network, address, text string) error {
	connection, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(connection, text); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	count, err := connection.Read(buffer)
	if err != nil {
		return err
	}
	fmt.Println(string(buffer[:count]))
	return nil
}
