"""The only room that imports rclpy: the node, its topics, parameters and reports."""
