"""What is deployed with a network: views, calibration and a decision rule, fitted on val as one."""
