package main

import (
	"fmt"

	"heliograph/tools/secrets"
)

// secretsCmd makes what edges and delivery instances share.
type secretsCmd struct {
	secretsFlags
}

// Help shows how it is used.
func (secretsCmd) Help() string {
	return `What is there already stays as it is. The edges' certificate signs itself and is for localhost: where
devices come from elsewhere, put a certificate of yours and its key in the place of edge.pem and edge.key.

Examples:
  helio secrets --secrets /etc/helio/secrets
  kubectl create secret generic helio-secrets --from-file=/etc/helio/secrets`
}

// Run makes the files.
func (c *secretsCmd) Run() error {
	if err := secrets.Ensure(c.Secrets); err != nil {
		return err
	}
	fmt.Println("the secrets are in", c.Secrets)
	return nil
}
