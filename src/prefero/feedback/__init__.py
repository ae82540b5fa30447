"""Where preferences come from: sampling responses, judging them, and making pairs of them."""
