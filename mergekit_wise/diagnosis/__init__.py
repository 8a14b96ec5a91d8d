"""What this installation, machine and network offer to ``wise``, as findings. Changes nothing and knows no terminal."""
