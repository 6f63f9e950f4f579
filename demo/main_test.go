package demo

import (
	"os"
	"testing"

	"github.com/whisk-sandbox/whisk/internal/testuser"
)

func TestMain(m *testing.M) { os.Exit(testuser.Main(m)) }
